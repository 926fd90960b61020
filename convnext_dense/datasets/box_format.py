"""Boxes given as two corners where x, y, width and height are expected."""
from dataclasses import dataclass

LEAVING, FITTING, FEWEST = 0.25, 0.99, 4  # shares of the boxes, and the number from which they mean something


@dataclass
class BoxFormat:
    """Counts of boxes that leave their image as x, y, width, height, and of those that fit as two corners."""
    boxes: int = 0
    leaving: int = 0
    fitting: int = 0

    def add(self, box: list[float], width: float, height: float) -> None:
        """Count one box of four numbers in an image of this size."""
        a, b, c, d = box
        self.boxes += 1
        self.leaving += a + c > width + 1 or b + d > height + 1
        self.fitting += a < c <= width + 1 and b < d <= height + 1

    @property
    def is_corners(self) -> bool:
        """Whether a quarter of the boxes leave their image, and nearly all would fit as two corners."""
        return (self.boxes >= FEWEST and self.leaving > LEAVING * self.boxes
                and self.fitting >= FITTING * self.boxes)

    @property
    def sentence(self) -> str:
        """What was counted."""
        return (f'{self.leaving} of {self.boxes} boxes leave their image as x, y, width, height, and {self.fitting} '
                'fit as x1, y1, x2, y2')
