"""Drop-in transforms for the pipelines of mmdet and mmseg: the same results in less time.

`det` and `seg` register them with the package that they extend, when one of its registries is first used.
"""

# what each stands in for; in mmdet's registry, in mmseg's, or one of the same name in both
STOCK = {'FastLoadAnnotations': 'LoadAnnotations', 'FastPackDetInputs': 'PackDetInputs',
         'FastPackSegInputs': 'PackSegInputs', 'FastPhotoMetricDistortion': 'PhotoMetricDistortion',
         'FastRandomCrop': 'RandomCrop', 'FastRandomFlip': 'RandomFlip'}


def stock_pipeline(pipeline: list) -> list:
    """The config of a pipeline with mmdet's or mmseg's own transforms instead of ours, nested ones included."""
    def stock(node):
        if isinstance(node, dict):
            return {key: STOCK.get(value, value) if key == 'type' else stock(value) for key, value in node.items()}
        return type(node)(map(stock, node)) if isinstance(node, (list, tuple)) else node
    return stock(pipeline)
