"""Image convolution with numpy: bands of an image through Pool.imap_unordered.

The image is cut into bands, each with the few rows above and below that its edge pixels need.
Workers blur one band at a time; results arrive in any order and carry their place in the image.
The same blur is then computed directly, in one piece, to compare.

Run it:             dragon 05_convolution.py
With plain Python:  python3 05_convolution.py --method spawn
"""

import argparse

parser = argparse.ArgumentParser(description="Blur an image in parallel.")
parser.add_argument("--method", default="dragon", help="start method (default: %(default)s)")
args = parser.parse_args()

if args.method == "dragon":
    import dragon  # first: it brings the start method "dragon"
import multiprocessing as mp
import zlib

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.int64]

SIZE = 1024  # pixels a side
BAND = 64  # rows a task
BINOMIAL = np.array([1, 8, 28, 56, 70, 56, 28, 8, 1])
KERNEL = np.outer(BINOMIAL, BINOMIAL)  # integers: sums are exact in any order
MARGIN = len(BINOMIAL) // 2


def make_image() -> Image:
    """Return a test picture with fine and coarse structure, pixels 0 to 255."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image: Image = np.bitwise_and((x * y // 64) ^ (x + 2 * y), 255)
    return image


def convolve(padded: Image) -> Image:
    """Return the convolution with KERNEL, smaller than its input by MARGIN on every side."""
    height, width = padded.shape[0] - 2 * MARGIN, padded.shape[1] - 2 * MARGIN
    result = np.zeros((height, width), dtype=np.int64)
    for (dy, dx), weight in np.ndenumerate(KERNEL):
        result += weight * padded[dy : dy + height, dx : dx + width]
    return result


def convolve_band(task: tuple[int, Image]) -> tuple[int, Image]:
    """Convolve one band; return it with its first row, so that it finds its place."""
    first_row, band = task
    return first_row, convolve(band)


if __name__ == "__main__":
    mp.set_start_method(args.method)
    padded = np.pad(make_image(), MARGIN, mode="edge")
    tasks = [(row, padded[row : row + BAND + 2 * MARGIN]) for row in range(0, SIZE, BAND)]
    blurred = np.empty((SIZE, SIZE), dtype=np.int64)
    with mp.Pool(2) as pool:
        for first_row, band in pool.imap_unordered(convolve_band, tasks):
            blurred[first_row : first_row + BAND] = band
    print("equal to the direct computation:", np.array_equal(blurred, convolve(padded)))
    print(f"mean {blurred.mean() / KERNEL.sum():.3f}, checksum {zlib.crc32(blurred.tobytes()):08x}")
