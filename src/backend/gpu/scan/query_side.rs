//! The query side of a batch on the device.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::PreparedQueries;
use crate::backend::gpu::device::{Buffer, Gpu};
use crate::backend::gpu::kernels::{Recorder, Submission};
use crate::model::Mol;
use crate::tables::Form;
use crate::tensor::Tensor;

/// The arrays of the query record of all queries of a batch, for the weights and the form that they were computed for.
pub(crate) struct QuerySide {
    gpu: Arc<Gpu>,
    mol: Mol<Tensor>,
    form: Form,
    computed: Mutex<Option<(Submission, Vec<Buffer>)>>,
}

impl QuerySide {
    /// That of `queries` on the device, by `mol`, for items in `form`; perhaps not computed yet.
    pub fn of(gpu: &Arc<Gpu>, mol: &Mol<Tensor>, form: Form, queries: &PreparedQueries) -> Arc<QuerySide> {
        let is_it = |side: &QuerySide| Arc::ptr_eq(&side.gpu, gpu) && side.form == form && side.mol.shares_weights(mol);
        let new = || QuerySide { gpu: gpu.clone(), mol: mol.clone(), form, computed: Mutex::default() };
        queries.side(is_it, new)
    }

    /// The arrays, which `compute` records unless an earlier command, or another submission, has computed them.
    pub fn arrays(&self, recorder: &mut Recorder, compute: impl FnOnce(&mut Recorder) -> Vec<Buffer>) -> Vec<Buffer> {
        let known = |recorder: &Recorder, computed: &Option<(Submission, Vec<Buffer>)>| {
            let (submission, arrays) = computed.as_ref()?;
            recorder.follows(submission).then(|| arrays.clone())
        };
        let mut computed = self.computed.lock().unwrap_or_else(PoisonError::into_inner);
        known(recorder, &computed).unwrap_or_else(|| {
            let arrays = compute(recorder);
            *computed = Some((recorder.submission().clone(), arrays.clone()));
            arrays
        })
    }
}

/// The rows `range` of each array of `n` rows, in buffers of their own: a part of a buffer may not be aligned as a binding must be.
pub(crate) fn rows_of(recorder: &mut Recorder, arrays: Vec<Buffer>, n: usize, range: &Range<usize>) -> Vec<Buffer> {
    if *range == (0..n) {
        return arrays;
    }
    let rows = |array: &Buffer| {
        let row = array.bytes() / n as u64;
        let rows = recorder.temporary(range.len() as u64 * row);
        recorder.copy(&array.slice(range.start as u64 * row..range.end as u64 * row), &rows);
        rows
    };
    arrays.iter().map(rows).collect()
}
