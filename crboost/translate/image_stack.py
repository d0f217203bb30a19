"""Where a pixel of the stack that a tool aligned lies in the full-size tilt image. Pure.

Tools align a small copy of the tilt images, and count from a centre of their own. Both matter: in
images shrunk eight-fold, half a pixel of the stack is four of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crboost.errors import CrboostError

#: A tool's centre of n pixels, as a pixel index: `middle` (n - 1) / 2 (IMOD: the middle between
#: the edges), `half` n / 2 (AreTomo).
Centre = Literal["middle", "half"]


@dataclass(frozen=True)
class ImageStack:
    """Stack pixels from the tool's centre <-> Angstrom from RELION's centre of the full image.

    Attributes:
        pixel_size_angstrom: of the stack.
        origin_angstrom: the tool's centre seen from RELION's, (x, y).
    """

    pixel_size_angstrom: float
    origin_angstrom: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def plain(cls, pixel_size_angstrom: float) -> ImageStack:
        """Centres taken as the same point: what RELION's own import and Warp's do."""
        return cls(pixel_size_angstrom)

    @classmethod
    def shrunk(
        cls,
        image_size_px: tuple[int, int],
        image_pixel_size_angstrom: float,
        factor: float,
        *,
        centre: Centre,
    ) -> ImageStack:
        """The stack that IMOD's `newstack -shrink <factor>` made.

        It has int(n / factor) pixels along an axis, each exactly `factor` of the image's wide;
        what is left over is trimmed from both ends alike (`newstack.f90`, `getReducedSize`;
        `irdreduced.f90`). So the middle stays the middle, whatever the sizes.

        Args:
            image_size_px: of the full-size tilt image, (x, y).
            image_pixel_size_angstrom: of the full-size tilt image.
            factor: as given to `newstack`; 1 for images that were only put together.
            centre: from where the tool counts.
        """
        if min(image_size_px) < 1 or image_pixel_size_angstrom <= 0 or factor < 1:
            raise CrboostError(
                f"image of {image_size_px} pixels of {image_pixel_size_angstrom} A, shrunk "
                f"{factor} times: sizes must be positive, and the factor at least 1"
            )
        ahead = {"middle": 0.0, "half": 0.5}[centre] * factor
        x, y = (
            ((size - 1) / 2 + ahead - size // 2) * image_pixel_size_angstrom
            for size in image_size_px
        )
        return cls(factor * image_pixel_size_angstrom, (x, y))

    def shift_angstrom(self, offset_px: tuple[float, float]) -> tuple[float, float]:
        """RELION's shift of a specimen whose centre the tool sees at `offset_px` from its own."""
        return (
            self.origin_angstrom[0] + offset_px[0] * self.pixel_size_angstrom,
            self.origin_angstrom[1] + offset_px[1] * self.pixel_size_angstrom,
        )

    def offset_px(self, shift_angstrom: tuple[float, float]) -> tuple[float, float]:
        """The inverse of `shift_angstrom`."""
        return (
            (shift_angstrom[0] - self.origin_angstrom[0]) / self.pixel_size_angstrom,
            (shift_angstrom[1] - self.origin_angstrom[1]) / self.pixel_size_angstrom,
        )
