//! Rows of tokens inside a slice: what recurrences read and write, whole matrices and ranges of their columns alike.

/// Rows to read: row t begins at `t * stride` and is as wide as the op says.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Where the rows lie.
    pub data: &'a [f32],
    /// Elements between the starts of two rows; at least the width.
    pub stride: usize,
}

/// Rows to write.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// Where the rows lie; what is between them stays as it is.
    pub data: &'a mut [f32],
    /// Elements between the starts of two rows; at least the width.
    pub stride: usize,
}

/// Elements from the start of the first row to the end of the last.
fn span(rows: usize, width: usize, stride: usize) -> usize {
    rows.checked_sub(1).map_or(0, |last| last.checked_mul(stride).expect("rows that fit in memory") + width)
}

impl<'a> Rows<'a> {
    /// Rows without a gap.
    pub fn dense(data: &'a [f32], width: usize) -> Rows<'a> {
        Rows { data, stride: width }
    }

    /// The columns of these rows from `first` on; none where there is no such column.
    pub fn columns_from(self, first: usize) -> Rows<'a> {
        Rows { data: &self.data[first.min(self.data.len())..], stride: self.stride }
    }

    /// Row `t`, cut to `width`.
    #[inline]
    pub(crate) fn row(&self, t: usize, width: usize) -> &'a [f32] {
        &self.data[t * self.stride..][..width]
    }

    /// Panics unless `rows` rows of `width` lie inside.
    #[track_caller]
    pub(crate) fn check(&self, rows: usize, width: usize, what: &str) {
        check(self.data.len(), rows, width, self.stride, what);
    }
}

impl<'a> RowsMut<'a> {
    /// Rows without a gap.
    pub fn dense(data: &'a mut [f32], width: usize) -> RowsMut<'a> {
        RowsMut { data, stride: width }
    }

    /// Row `t`, cut to `width`.
    #[inline]
    pub(crate) fn row(&mut self, t: usize, width: usize) -> &mut [f32] {
        &mut self.data[t * self.stride..][..width]
    }

    /// Panics unless `rows` rows of `width` lie inside.
    #[track_caller]
    pub(crate) fn check(&self, rows: usize, width: usize, what: &str) {
        check(self.data.len(), rows, width, self.stride, what);
    }
}

#[track_caller]
fn check(len: usize, rows: usize, width: usize, stride: usize, what: &str) {
    assert!(stride >= width, "{what}: rows of {width} cannot be {stride} apart");
    let needed = span(rows, width, stride);
    assert!(len >= needed, "{what} [{rows}, {width}] with stride {stride} has {len} elements of {needed}");
}
