//! Where the pixels of an image lie in a slice, with all arithmetic checked once.

/// Channels that lie side by side, and are computed together.
pub const LANES: usize = 16;
/// Largest height, width, border and number of blocks.
const EXTENT_MAX: usize = 1 << 16;
/// Most floats of one image: 2 GiB.
const FLOATS_MAX: usize = 1 << 29;

/// Why shapes do not fit each other or a kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    #[error("an extent is 0 or larger than {EXTENT_MAX}")]
    Extent,
    #[error("an image is larger than {FLOATS_MAX} floats")]
    TooLarge,
    #[error("the kernels do not have {0}")]
    Unsupported(&'static str),
    #[error("{0} do not fit each other")]
    Mismatch(&'static str),
    #[error("a window reaches past the border of its input")]
    Border,
}

/// An image of one request: `[blocks][top + height + bottom][left + width + right][lanes]` floats.
///
/// Borders are zeros that windows may reach into. `lanes` is 16, or 3 for an RGB image that is not
/// blocked. Fields are private: an `Image` that exists is small enough to compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    blocks: usize,
    lanes: usize,
    height: usize,
    width: usize,
    border: Border,
}

/// Rows and columns of zeros around an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Border {
    pub top: usize,
    pub left: usize,
    pub bottom: usize,
    pub right: usize,
}

impl Border {
    /// The smallest that is as large as both.
    #[must_use]
    pub fn around(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            left: self.left.max(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.max(other.right),
        }
    }
}

impl Image {
    /// A blocked image: 16 channels in each of `blocks`.
    pub fn blocked(
        blocks: usize,
        height: usize,
        width: usize,
        border: Border,
    ) -> Result<Self, ShapeError> {
        Self::checked(blocks, LANES, height, width, border)
    }

    /// An RGB image, its three channels side by side.
    pub fn rgb(height: usize, width: usize, border: Border) -> Result<Self, ShapeError> {
        Self::checked(1, 3, height, width, border)
    }

    fn checked(
        blocks: usize,
        lanes: usize,
        height: usize,
        width: usize,
        border: Border,
    ) -> Result<Self, ShapeError> {
        let extents = [blocks, height, width];
        let borders = [border.top, border.left, border.bottom, border.right];
        if extents.iter().any(|e| *e == 0 || *e > EXTENT_MAX)
            || borders.iter().any(|e| *e > EXTENT_MAX)
        {
            return Err(ShapeError::Extent);
        }
        let (rows, columns) = (
            border.top + height + border.bottom,
            border.left + width + border.right,
        );
        [lanes, columns, rows, blocks]
            .iter()
            .try_fold(1_usize, |n, &e| n.checked_mul(e))
            .filter(|n| *n <= FLOATS_MAX)
            .ok_or(ShapeError::TooLarge)?;
        Ok(Self {
            blocks,
            lanes,
            height,
            width,
            border,
        })
    }

    #[must_use]
    pub const fn blocks(&self) -> usize {
        self.blocks
    }

    /// Channels that lie side by side: 16 or 3.
    #[must_use]
    pub const fn lanes(&self) -> usize {
        self.lanes
    }

    #[must_use]
    pub const fn height(&self) -> usize {
        self.height
    }

    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    #[must_use]
    pub const fn border(&self) -> Border {
        self.border
    }

    /// Pixels without borders.
    #[must_use]
    pub const fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Floats from a pixel to the one below.
    #[must_use]
    pub const fn row(&self) -> usize {
        (self.border.left + self.width + self.border.right) * self.lanes
    }

    /// Floats from a block to the next.
    #[must_use]
    pub const fn plane(&self) -> usize {
        (self.border.top + self.height + self.border.bottom) * self.row()
    }

    /// Floats of the whole image.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.blocks * self.plane()
    }

    /// Never: an image has a pixel.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Offset of a pixel in the first block, without borders counted: (0, 0) is the first real one.
    #[must_use]
    pub const fn at(&self, y: usize, x: usize) -> usize {
        (self.border.top + y) * self.row() + (self.border.left + x) * self.lanes
    }

    /// Whether rows follow each other without a gap.
    #[must_use]
    pub const fn is_flat(&self) -> bool {
        self.border.left == 0 && self.border.right == 0
    }

    /// Whether another image has as many blocks, rows and columns.
    #[must_use]
    pub const fn same_size(&self, other: &Self) -> bool {
        self.blocks == other.blocks && self.height == other.height && self.width == other.width
    }
}

/// How a window moves over an image: `(vertical, horizontal)` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub dilation: (usize, usize),
    /// Rows above and columns left of the image that the first window covers.
    pub before: (usize, usize),
}

impl Window {
    /// One pixel at a time.
    pub const PIXEL: Self = Self {
        kernel: (1, 1),
        stride: (1, 1),
        dilation: (1, 1),
        before: (0, 0),
    };

    pub(crate) fn check(&self) -> Result<(), ShapeError> {
        let all = [self.kernel, self.stride, self.dilation];
        let small = |n: usize| n <= EXTENT_MAX;
        if all
            .iter()
            .any(|(a, b)| *a == 0 || *b == 0 || !small(*a) || !small(*b))
            || !small(self.before.0)
            || !small(self.before.1)
        {
            return Err(ShapeError::Extent);
        }
        Ok(())
    }

    /// The border that `input` needs so that every window of `output` lies inside.
    pub fn border(
        &self,
        input: (usize, usize),
        output: (usize, usize),
    ) -> Result<Border, ShapeError> {
        self.check()?;
        if output.0 == 0 || output.1 == 0 || output.0 > EXTENT_MAX || output.1 > EXTENT_MAX {
            return Err(ShapeError::Extent);
        }
        // The last element of the last window, counted from the first row of the border: each
        // factor is at most 2^16.
        let end = |out: usize, stride: usize, kernel: usize, dilation: usize| {
            (out - 1) * stride + (kernel - 1) * dilation + 1
        };
        let bottom = end(output.0, self.stride.0, self.kernel.0, self.dilation.0);
        let right = end(output.1, self.stride.1, self.kernel.1, self.dilation.1);
        Ok(Border {
            top: self.before.0,
            left: self.before.1,
            bottom: bottom.saturating_sub(self.before.0 + input.0),
            right: right.saturating_sub(self.before.1 + input.1),
        })
    }

    /// Whether every window of `output` lies inside `input` with its border.
    pub(crate) fn fits(&self, input: &Image, output: &Image) -> Result<(), ShapeError> {
        let need = self.border((input.height, input.width), (output.height, output.width))?;
        if need.around(input.border) == input.border {
            Ok(())
        } else {
            Err(ShapeError::Border)
        }
    }
}
