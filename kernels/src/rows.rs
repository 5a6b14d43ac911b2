//! Rows of tokens inside a slice: what recurrences read and write, whole matrices and ranges of their columns alike.

/// Rows to read: row t begins at `t * stride` and is as wide as the op says.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Where the rows lie.
    pub data: &'a [f32],
    /// Elements between the starts of two rows; 0 where one row serves all tokens.
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

impl<'a> Rows<'a> {
    /// Rows without a gap.
    pub fn dense(data: &'a [f32], width: usize) -> Rows<'a> {
        Rows { data, stride: width }
    }

    /// The same row for every token.
    pub fn same(row: &'a [f32]) -> Rows<'a> {
        Rows { data: row, stride: 0 }
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

    /// The columns of these rows from `first` on.
    #[inline]
    pub(crate) fn columns_from(&mut self, first: usize) -> RowsMut<'_> {
        RowsMut { data: &mut self.data[first..], stride: self.stride }
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
        assert!(rows < 2 || self.stride > 0, "{what}: one row for {rows} tokens");
    }
}

#[track_caller]
fn check(len: usize, rows: usize, width: usize, stride: usize, what: &str) {
    assert!(rows < 2 || stride == 0 || stride >= width, "{what}: rows of {width} cannot be {stride} apart");
    let last = rows.saturating_sub(1).checked_mul(stride);
    let enough = rows == 0 || last.and_then(|last| last.checked_add(width)).is_some_and(|needed| needed <= len);
    assert!(enough, "{what} [{rows}, {width}] with stride {stride} has {len} elements");
}
