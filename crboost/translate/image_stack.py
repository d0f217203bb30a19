"""Where a pixel of the stack that a tool aligned lies in the full-size tilt image. Pure.

Tools align a small copy of the tilt images, and count from a centre of their own. Both matter: with
the images Fourier-cropped eight-fold, half a pixel of the stack is four of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crboost.errors import CrboostError

#: How the stack was made. `cropped` (in Fourier space: Warp, RELION) keeps the centre of pixel 0
#: where it was; `averaged` (IMOD's binning) keeps the image's edges.
Sampling = Literal["cropped", "averaged"]

#: A tool's centre of n pixels, as a pixel index: `middle` (n - 1) / 2 (IMOD, AreTomo: the middle
#: between the edges), `half` n / 2 (Warp), `whole` n // 2 (RELION, crboost).
Centre = Literal["middle", "half", "whole"]


@dataclass(frozen=True)
class ImageStack:
    """Stack pixels from the tool's centre <-> Angstrom from RELION's centre of the full image.

    Attributes:
        pixel_size_angstrom: of the stack, (x, y).
        origin_angstrom: the tool's centre seen from RELION's, (x, y).
    """

    pixel_size_angstrom: tuple[float, float]
    origin_angstrom: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def plain(cls, pixel_size_angstrom: float) -> ImageStack:
        """Centres taken as the same point: what RELION's own import and Warp's do."""
        return cls((pixel_size_angstrom, pixel_size_angstrom))

    @classmethod
    def of(
        cls,
        image_size_px: tuple[int, int],
        image_pixel_size_angstrom: float,
        stack_size_px: tuple[int, int],
        *,
        sampling: Sampling,
        centre: Centre,
    ) -> ImageStack:
        """The stack of a tool whose rules are known.

        The stack's pixel is the image's times the ratio of the sizes: a stack is as wide as its
        image, whatever rounded pixel size its header says.

        Args:
            image_size_px: of the full-size tilt image, (x, y).
            image_pixel_size_angstrom: of the full-size tilt image.
            stack_size_px: of the tool's images, (x, y).
        """
        if min(*image_size_px, *stack_size_px) < 1 or image_pixel_size_angstrom <= 0:
            raise CrboostError(
                f"image of {image_size_px} pixels of {image_pixel_size_angstrom} A, stack of "
                f"{stack_size_px} pixels: sizes must be positive"
            )
        scales, origins = [], []
        for image, stack in zip(image_size_px, stack_size_px, strict=True):
            ratio = image / stack
            index = {"middle": (stack - 1) / 2, "half": stack / 2, "whole": stack // 2}[centre]
            full = index * ratio if sampling == "cropped" else (index + 0.5) * ratio - 0.5
            scales.append(ratio * image_pixel_size_angstrom)
            origins.append((full - image // 2) * image_pixel_size_angstrom)
        return cls((scales[0], scales[1]), (origins[0], origins[1]))

    def shift_angstrom(self, offset_px: tuple[float, float]) -> tuple[float, float]:
        """RELION's shift of a specimen whose centre the tool sees at `offset_px` from its own."""
        return (
            self.origin_angstrom[0] + offset_px[0] * self.pixel_size_angstrom[0],
            self.origin_angstrom[1] + offset_px[1] * self.pixel_size_angstrom[1],
        )

    def offset_px(self, shift_angstrom: tuple[float, float]) -> tuple[float, float]:
        """The inverse of `shift_angstrom`."""
        return (
            (shift_angstrom[0] - self.origin_angstrom[0]) / self.pixel_size_angstrom[0],
            (shift_angstrom[1] - self.origin_angstrom[1]) / self.pixel_size_angstrom[1],
        )
