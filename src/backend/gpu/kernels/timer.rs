//! What the kernels of a submission take, by timestamps of the device, for searches that ask for it.

use std::time::Duration;

use crate::Result;
use crate::backend::SearchContext;
use crate::backend::gpu::device::{Buffer, Gpu};
use crate::context::Stage;

/// Passes that one query set has room for, each with a timestamp before and after it.
const PASSES: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2;

/// Timestamps around every dispatch of a submission, each of which has a pass of its own.
#[derive(Debug)]
pub(crate) struct Timer {
    context: SearchContext,
    kernels: Vec<(Stage, &'static str)>,
    sets: Vec<wgpu::QuerySet>,
    resolved: Buffer,
    readback: Buffer,
    /// Nanoseconds of a tick.
    period: f64,
}

impl Timer {
    /// For dispatches of these kernels in these stages, if the search asks for it and the device has timestamps.
    ///
    /// # Errors
    /// If the device fails.
    pub fn of_search(
        context: &SearchContext,
        gpu: &Gpu,
        kernels: impl Iterator<Item = (Stage, &'static str)>,
    ) -> Result<Option<Timer>> {
        if !context.is_profiled() || !gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let kernels: Vec<(Stage, &'static str)> = kernels.collect();
        if kernels.is_empty() {
            return Ok(None);
        }
        let set = |passes: &[(Stage, &str)]| {
            let count = 2 * passes.len() as u32;
            let descriptor = wgpu::QuerySetDescriptor { label: Some("timer"), ty: wgpu::QueryType::Timestamp, count };
            gpu.guarded("timestamps", || gpu.device().create_query_set(&descriptor))
        };
        let sets = kernels.chunks(PASSES).map(set).collect::<Result<Vec<_>>>()?;
        let bytes = 16 * kernels.len() as u64;
        let resolved = gpu.temporary(bytes, wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC)?;
        let readback = gpu.temporary(bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        let period = f64::from(gpu.queue().get_timestamp_period());
        Ok(Some(Timer { context: context.clone(), kernels, sets, resolved, readback, period }))
    }

    /// What to put around the passes, in their order.
    pub fn passes(&self) -> impl Iterator<Item = wgpu::ComputePassTimestampWrites<'_>> {
        (0..self.kernels.len()).map(|pass| {
            let first = 2 * (pass % PASSES) as u32;
            wgpu::ComputePassTimestampWrites {
                query_set: &self.sets[pass / PASSES],
                beginning_of_pass_write_index: Some(first),
                end_of_pass_write_index: Some(first + 1),
            }
        })
    }

    /// Records the way of the timestamps to [`Timer::readback`].
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut at = 0;
        for (set, passes) in self.sets.iter().zip(self.kernels.chunks(PASSES)) {
            encoder.resolve_query_set(set, 0..2 * passes.len() as u32, self.resolved.handle(), at);
            at += 16 * passes.len() as u64;
        }
        encoder.copy_buffer_to_buffer(self.resolved.handle(), 0, self.readback.handle(), 0, at);
    }

    /// Where the timestamps arrive.
    pub fn readback(&self) -> &Buffer {
        &self.readback
    }

    /// Tells the search what has arrived.
    pub fn report(&self, bytes: &[u8]) {
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(bytes);
        for (&(stage, kernel), pair) in self.kernels.iter().zip(ticks.chunks_exact(2)) {
            // A device may set its clock back.
            let ns = pair[1].saturating_sub(pair[0]) as f64 * self.period;
            self.context.dispatched(stage, kernel, Duration::from_nanos(ns as u64));
        }
    }
}
