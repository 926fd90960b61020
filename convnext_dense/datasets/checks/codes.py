"""Every finding of the data set checker: code, severity and meaning."""

SEVERITIES = ('error', 'warning', 'note')

# code: (severity, meaning and what to do)
CODES = {
    # image files
    'image-missing': ('error', 'the annotations name an image that is not there'),
    'image-empty': ('error', 'the image file has no bytes'),
    'image-unreadable': ('error', 'the file is no image that can be decoded'),
    'image-oversized': ('error', 'the image has more pixels than the limit, which CONVNEXT_DENSE_MAX_PIXELS sets; it '
                                 'is not decoded'),
    'image-truncated': ('error', 'the image file is cut off; the rest would be read as grey'),
    'image-pages': ('error', 'the file has several pages, of which one would be read; save each as an image'),
    'image-depth': ('error', 'values have more than 8 bits, and no value_range maps them to 8 bits; convert the '
                             'data set, or set it in LoadImageWithRange'),
    'image-value-range': ('warning', 'nearly all values lie on one side of value_range, so the image is read as '
                                     'black or white'),
    'image-size': ('error', 'the annotations give another width and height than the file has'),
    'image-rotated': ('warning', 'an EXIF tag rotates the image when it is read; boxes and masks may be for the '
                                 'unrotated one'),
    'image-duplicate': ('warning', 'the same image is in the split more than once'),
    'image-leak': ('error', 'the same image is in training and validation, so results would be too good'),
    'image-unlisted': ('note', 'image files of the folder that the annotations do not name; they are not used'),
    'image-without-objects': ('note', 'images without any object; training leaves them out by default'),
    # the COCO json file
    'json-broken': ('error', 'the annotation file is not readable as JSON'),
    'json-incomplete': ('error', 'the annotation file lacks images, annotations or categories'),
    'image-incomplete': ('error', 'an image record has no id, file_name, width or height, or one of a wrong type'),
    'image-outside': ('error', 'a file_name leads out of the data folder; the file is not read'),
    'image-id-duplicate': ('error', 'two image records have the same id'),
    'file-name-duplicate': ('error', 'two image records have the same file name'),
    'annotation-incomplete': ('error', 'an annotation has no id, image_id, category_id or bbox, or one of a wrong '
                                       'type'),
    'annotation-id-duplicate': ('error', 'two annotations have the same id; COCO evaluation then drops or mixes them'),
    'annotation-unknown-image': ('error', 'an annotation is of an image that the file does not list'),
    'annotation-unknown-category': ('error', 'an annotation is of a category that the file does not list'),
    'annotation-duplicate': ('warning', 'two annotations of an image have the same category and box'),
    'box-not-finite': ('error', 'a box has a value that is no finite number'),
    'box-inverted': ('error', 'a box has a negative width or height; COCO boxes are x, y, width, height'),
    'box-empty': ('error', 'a box has no width or no height'),
    'box-corners': ('error', 'boxes seem to be x1, y1, x2, y2; COCO boxes are x, y, width, height'),
    'box-shares': ('error', 'boxes seem to be shares of the image, from 0 to 1; COCO boxes are in pixels'),
    'box-thin': ('warning', 'a box is less than a pixel wide or high; mmdet leaves it out silently'),
    'box-outside': ('warning', 'a box reaches beyond the image by more than a pixel'),
    'box-off-image': ('error', 'a box lies completely outside the image'),
    'mask-empty': ('error', 'a mask has no pixel'),
    'mask-missing': ('warning', 'some objects have a mask and this one has none; a mask head needs all of them'),
    'mask-outside': ('warning', 'a polygon reaches beyond the image by more than a pixel'),
    'mask-box-mismatch': ('warning', 'a mask and its box do not have the same extent'),
    'area-mismatch': ('warning', 'the area is not that of the mask (without a mask: of the box); COCO evaluation '
                                 'divides objects into small, medium and large by it'),
    'polygon-short': ('error', 'a polygon has fewer than three points'),
    'polygon-odd': ('error', 'a polygon has an odd number of coordinates'),
    'polygon-not-finite': ('error', 'a polygon has a coordinate that is no finite number'),
    'rle-size': ('error', 'run lengths are for another size than that of the image'),
    'rle-broken': ('error', 'run lengths cannot be decoded, or do not add up to the image'),
    # categories and classes
    'category-id-duplicate': ('error', 'two categories have the same id'),
    'category-name-duplicate': ('error', 'two categories have the same name'),
    'category-name': ('error', 'a category name is empty, or has a line break or control character'),
    'category-ids': ('note', 'category ids are not 1 to n; that is fine, they are mapped by name'),
    'split-classes': ('error', 'training and validation have different categories'),
    'class-absent': ('warning', 'a class has no object or pixel in this split'),
    'class-tiny': ('warning', 'a class has fewer than 10 objects (segmentation: images) to train on'),
    # label maps
    'label-missing': ('error', 'an image has no label map'),
    'label-without-image': ('warning', 'a label map has no image'),
    'label-unreadable': ('error', 'a label map is empty, cut off, too large or no image'),
    'label-colours': ('error', 'a label map has colours instead of one channel of ids'),
    'label-lossy': ('error', 'a label map is a JPEG, whose values are not exact'),
    'label-size': ('error', 'a label map has another size than its image'),
    'label-value': ('error', 'a label map has values that no class has; training would stop at them'),
    'label-all-ignored': ('warning', 'every pixel of a label map is ignored'),
    'labels-from-one': ('error', 'labels count from 1 and 0 is unused: set reduce_zero_label=True, or lower them by 1'),
    'zero-is-class': ('error', 'reduce_zero_label=True ignores label 0, but 0 is a class here: set it to False'),
    'ignore-as-class': ('error', 'the ignored label is also the label of a class, which would never be learnt'),
    'void-class': ('warning', 'the name of a class says that its pixels have no class; ignore it (label 255)'),
    # the config
    'config-refused': ('error', 'training would not start with this config'),
    'class-unknown': ('error', 'the config has a class that the annotations lack'),
    'category-dropped': ('warning', 'the annotations have a category that the config does not train'),
    'object-small': ('warning', 'objects are under 8 pixels wide or high once the config has resized their images'),
    'norm-scale': ('error', 'mean and std are not on the scale of the images, which have values from 0 to 255'),
    'norm-order': ('error', 'mean and std are in the other channel order than bgr_to_rgb gives'),
    'norm-weights': ('warning', 'mean and std are not those that the pretrained weights were trained with'),
    'norm-missing': ('warning', 'the config does not normalise its images'),
}
TINY = 10  # objects or images: fewer are a 'class-tiny'
SMALL_SIDE = 8  # pixels after resizing: two cells of P2, the finest feature map with anchors
