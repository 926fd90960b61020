"""What TensorRT takes, and real images, for tests of exported models."""
import json

import onnx
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')


@pytest.fixture(scope='session')
def not_in_tensorrt(reference_dir):
    """ONNX file -> what of its graph TensorRT's documented list does not have."""
    lines = (reference_dir / 'tensorrt_operators.txt').read_text().splitlines()
    known = {name for line in lines if not line.startswith('#') for name in line.split()}

    def find(file) -> list[str]:
        model = onnx.load(file)
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        wrong = []
        for node in model.graph.node:
            assert not any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute)
            if node.domain or node.op_type not in known:
                wrong.append(node.op_type)
            if node.op_type == 'TopK' and not values[node.input[1]].item() < 3840:
                wrong.append(f'TopK of {values[node.input[1]]}')
        return wrong
    return find


@pytest.fixture(scope='session')
def coco_images(real_data) -> list[str]:
    """Two validation images of COCO, one upright and one lying."""
    content = json.loads((real_data / 'coco/annotations/instances_val2017.json').read_text())
    return [str(real_data / 'coco/val2017' / image['file_name']) for image in content['images'][:2]]


@pytest.fixture(scope='session')
def ade_images(real_data) -> list[str]:
    """Two validation images of ADE20K."""
    return [str(file) for file in sorted((real_data / 'ade/ADEChallengeData2016/images/validation').glob('*.jpg'))[:2]]
