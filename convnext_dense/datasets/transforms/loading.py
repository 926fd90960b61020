"""Loading of images with more than 8 bits a value, in mmengine's root registry: for mmdet and mmseg alike."""
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.registry import TRANSFORMS

from ...errors import UserError
from ...utils.image_values import read_bgr


@TRANSFORMS.register_module()
class LoadImageWithRange(LoadImageFromFile):
    """mmcv's LoadImageFromFile for images of 8 bits, 16 bits or floats: what is in ``value_range`` becomes 0 to 255.

    Args:
        value_range: (low, high), the values that become 0 and 255; images of 8 bits are read as they are.
        backend_args: of mmengine.fileio.

    Raises:
        UserError: the range is empty, or the image cannot be read.
    """

    def __init__(self, value_range: tuple[float, float], backend_args: dict | None = None):
        super().__init__(backend_args=backend_args)
        if len(value_range) != 2 or not value_range[0] < value_range[1]:
            raise UserError(f'value_range={value_range}: expected (low, high), two numbers, the first below the second')
        self.value_range = tuple(value_range)

    def transform(self, results: dict) -> dict:
        """Set ``img``, uint8 BGR, and the shapes."""
        file = results['img_path']
        image = read_bgr(fileio.get(file, backend_args=self.backend_args), file, self.value_range)
        if image is None:
            raise UserError(f'{file} cannot be decoded as an image: repair it, or remove it from the data set')
        return {**results, 'img': image, 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2]}

    def __repr__(self) -> str:
        return f'{type(self).__name__}(value_range={self.value_range})'
