"""Boxes given as two corners, or as shares of the image, where x, y, width and height in pixels are expected."""
from dataclasses import dataclass

LEAVING, FITTING, FEWEST = 0.25, 0.99, 4  # shares of the boxes, and the number from which they mean something


@dataclass
class BoxFormat:
    """Counts of boxes that leave their image as x, y, width, height, and of those that fit as other forms."""
    boxes: int = 0
    leaving: int = 0
    fitting: int = 0
    shares: int = 0

    def add(self, box: list[float], width: float, height: float) -> None:
        """Count one box of four numbers in an image of this size."""
        a, b, c, d = box
        self.boxes += 1
        self.leaving += a + c > width + 1 or b + d > height + 1
        self.fitting += a < c <= width + 1 and b < d <= height + 1
        self.shares += 0 <= min(box) and max(box) <= 1 < min(width, height)

    @property
    def is_corners(self) -> bool:
        """Whether a quarter of the boxes leave their image, and nearly all would fit as two corners."""
        return (self.boxes >= FEWEST and self.leaving > LEAVING * self.boxes
                and self.fitting >= FITTING * self.boxes)

    @property
    def is_shares(self) -> bool:
        """Whether nearly all boxes are numbers from 0 to 1."""
        return self.boxes >= FEWEST and self.shares >= FITTING * self.boxes

    @property
    def sentence(self) -> str:
        """What was counted."""
        if self.is_shares:
            return f'{self.shares} of {self.boxes} boxes have no number above 1, as if they were shares of the image'
        return (f'{self.leaving} of {self.boxes} boxes leave their image as x, y, width, height, and {self.fitting} '
                'fit as x1, y1, x2, y2')
