"""Where elements lie: swizzles, wgmma operands, fragments of wgmma, mma.sync and ldmatrix.

Written down from the figures and formulas of the PTX ISA and, for matrices in shared memory, from
the canonical layouts of CuTe, in a small algebra of layouts of our own. Nothing here comes from the
emulator. Functions of a thread and an element give (row, column) of the tile.
"""

from dataclasses import dataclass

SWIZZLES = (0, 32, 64, 128)


@dataclass(frozen=True)
class Layout:
    """A function from coordinates to offsets: nested shapes, and a stride for each leaf."""

    shape: tuple
    stride: tuple

    def __call__(self, *coordinates):
        return sum(
            _offset(coordinate, shape, stride)
            for coordinate, shape, stride in zip(coordinates, self.shape, self.stride, strict=True)
        )


def _offset(coordinate, shape, stride):
    if isinstance(shape, int):
        return coordinate * stride
    total = 0
    for size, step in zip(shape, stride, strict=True):
        total += coordinate % size * step
        coordinate //= size
    assert coordinate == 0
    return total


def swizzle_by_figure(offset, swizzle):
    """Byte offset in an aligned tile, in which chunks of 16 bytes trade places within rows.

    With swizzle 128B, 8 rows of 8 chunks: the row number is added, without carry, to the chunk's.
    With 64B, rows of 64 bytes and two of them to a number; with 32B, rows of 32 and four of them.
    """
    if swizzle == 0:
        return offset
    row, byte = divmod(offset, swizzle)
    chunk, rest = divmod(byte, 16)
    rows_per_number = 128 // swizzle
    chunk ^= row // rows_per_number % (swizzle // 16)
    return row * swizzle + chunk * 16 + rest


def swizzle_by_bits(address, swizzle):
    """The same as CuTe's Swizzle<B, 4, 3>: bits 7.. are added without carry to bits 4.."""
    bits = {0: 0, 32: 1, 64: 2, 128: 3}[swizzle]
    mask = (1 << bits) - 1
    return address ^ (address >> 7 & mask) << 4


def operand_layout(major, swizzle, leading, stride, element_bytes, size, k):
    """CuTe's canonical layout of an operand of `size` x k elements, in elements: (mn, k) -> offset.

    leading and stride are the byte offsets of the matrix descriptor.
    """
    chunk = 16 // element_bytes  # elements in a chunk of 16 bytes
    leading, stride = leading // element_bytes, stride // element_bytes
    if major == "k":
        pitch = max(swizzle // 16, 1) * chunk
        next_chunk = leading if swizzle == 0 else chunk
        return Layout(((8, size // 8), (chunk, k // chunk)), ((pitch, stride), (1, next_chunk)))
    # The last atom along mn may stick out.
    if swizzle == 0:
        return Layout(
            ((chunk, size // chunk), (8, k // 8)),
            ((1, stride), (chunk, leading)),
        )
    chunks = swizzle // 16
    return Layout(
        ((chunk, chunks, -(-size // (chunk * chunks))), (8, k // 8)),
        ((1, chunk, leading), (chunks * chunk, stride)),
    )


def operand_address(start, layout, mn, k, swizzle, element_bytes):
    return swizzle_by_bits(start + layout(mn, k) * element_bytes, swizzle)


# wgmma: a warpgroup's threads 0..127


def wgmma_accumulator(thread, element):
    """D of m64nN: fp32 or s32 elements, and fp16 ones counted singly."""
    warp, lane = divmod(thread, 32)
    row = warp * 16 + lane // 4 + element // 2 % 2 * 8
    return row, element // 4 * 8 + lane % 4 * 2 + element % 2


def wgmma_a_registers(thread, element, element_bytes):
    """A of m64 x 32 bytes in registers, elements counted over the four registers."""
    warp, lane = divmod(thread, 32)
    row, column = mma_a(lane, element, element_bytes)
    return warp * 16 + row, column


# mma.sync: lanes 0..31, elements counted over the registers of the fragment


def mma_a(lane, element, element_bytes):
    """A of m16 x 32 bytes: four registers of 4 bytes."""
    per_register = 4 // element_bytes
    register, within = divmod(element, per_register)
    row = lane // 4 + register % 2 * 8
    return row, register // 2 * 4 * per_register + lane % 4 * per_register + within


def mma_b(lane, element, element_bytes):
    """B of 32 bytes x n8: two registers; (k, n)."""
    per_register = 4 // element_bytes
    register, within = divmod(element, per_register)
    return register * 4 * per_register + lane % 4 * per_register + within, lane // 4


def mma_a_half(lane, element, element_bytes):
    """A of m16 x 16 bytes: two registers."""
    per_register = 4 // element_bytes
    register, within = divmod(element, per_register)
    return lane // 4 + register * 8, lane % 4 * per_register + within


def mma_b_half(lane, element, element_bytes):
    """B of 16 bytes x n8: one register."""
    return lane % 4 * (4 // element_bytes) + element, lane // 4


def mma_accumulator(lane, element):
    """C and D of m16 n8, fp32 or s32, and fp16 counted singly."""
    return lane // 4 + element // 2 * 8, lane % 4 * 2 + element % 2


def ldmatrix(lane, element, transposed=False):
    """The element of an 8 x 8 matrix of b16 that the lane gets; two in a register."""
    row, column = lane // 4, lane % 4 * 2 + element
    return (column, row) if transposed else (row, column)
