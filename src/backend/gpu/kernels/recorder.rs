//! A recorder collects the commands of one submission; the first error of all is returned when it is submitted.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::timer::Timer;
use crate::backend::SearchContext;
use crate::backend::gpu::device::{Bind, Buffer, Gpu, Kernel, KernelSpec, Lease, Pool, TIMEOUT};
use crate::context::Stage;
use crate::{Error, Result};

/// Offsets of uniform bindings are multiples of this on every device.
const UNIFORM_ALIGNMENT: usize = 256;

/// Commands on their way to a device.
///
/// Operations do not fail one by one: [`Recorder::submit`] or [`Recorder::read_bytes`] returns the first error, and
/// after an error nothing is recorded. Afterwards the recorder is empty and can be used again.
#[derive(Debug)]
pub struct Recorder {
    context: SearchContext,
    gpu: Arc<Gpu>,
    commands: Vec<Command>,
    uniforms: Vec<u8>,
    /// Temporary buffers of the commands, so that none returns to the pool before they are submitted.
    held: Vec<Arc<Lease>>,
    error: Option<Error>,
    /// What is recorded now.
    submission: Submission,
    /// The last submission of a search that may be cancelled.
    ahead: Option<wgpu::SubmissionIndex>,
}

/// The commands that a recorder hands to the device together, as whoever keeps their results knows them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Submission {
    submitted: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Command {
    /// `params` is a range of the uniforms.
    Dispatch {
        stage: Stage,
        kernel: Arc<Kernel>,
        params: Range<usize>,
        buffers: Vec<Part>,
        grid: [u32; 3],
    },
    Copy {
        from: Part,
        to: Part,
    },
    Clear(Part),
}

/// A range of a wgpu buffer. It does not keep a temporary buffer from the pool: `held` does.
#[derive(Debug)]
struct Part {
    buffer: wgpu::Buffer,
    offset: u64,
    bytes: u64,
}

impl From<&Buffer> for Part {
    fn from(buffer: &Buffer) -> Part {
        Part { buffer: buffer.handle().clone(), offset: buffer.offset(), bytes: buffer.bytes() }
    }
}

fn binding(buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(bytes) })
}

impl Recorder {
    /// An empty recorder.
    pub fn new(gpu: &Arc<Gpu>) -> Recorder {
        Recorder::with_context(&SearchContext::default(), gpu)
    }

    /// An empty recorder of the commands of a search, or of something else that may be cancelled or is measured.
    pub fn with_context(context: &SearchContext, gpu: &Arc<Gpu>) -> Recorder {
        Recorder {
            context: context.clone(),
            gpu: gpu.clone(),
            commands: Vec::new(),
            uniforms: Vec::new(),
            held: Vec::new(),
            error: None,
            submission: Submission::default(),
            ahead: None,
        }
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The commands that are recorded now.
    pub(crate) fn submission(&self) -> &Submission {
        &self.submission
    }

    /// Whether the commands that are recorded next find the results of `submission`.
    pub(crate) fn follows(&self, submission: &Submission) -> bool {
        Arc::ptr_eq(&submission.submitted, &self.submission.submitted) || submission.submitted.load(Ordering::Acquire)
    }

    /// Remembers the first error.
    pub fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// A temporary buffer of `bytes` bytes with arbitrary contents, for results of kernels.
    pub fn temporary(&mut self, bytes: u64) -> Buffer {
        let size = Pool::size_class(bytes);
        // What earlier commands of this recorder are done with serves the later ones: they run in order.
        let done = |lease: &&mut Arc<Lease>| lease.buffer.size() == size && Arc::strong_count(lease) == 1;
        if let Some(lease) = self.held.iter_mut().find(done) {
            return Buffer::leased(lease.clone(), bytes);
        }
        self.new_temporary(bytes)
    }

    /// A temporary buffer that holds `data`.
    pub fn upload<T: bytemuck::NoUninit>(&mut self, data: &[T]) -> Buffer {
        let data: &[u8] = bytemuck::cast_slice(data);
        // Never one of this recorder's own: the write comes before all of its commands.
        let buffer = self.new_temporary(data.len() as u64);
        if self.error.is_none()
            && let Err(error) = self.gpu.write(&buffer, data)
        {
            self.fail(error);
        }
        buffer
    }

    fn new_temporary(&mut self, bytes: u64) -> Buffer {
        match self.gpu.temporary_storage(bytes) {
            Ok(buffer) => {
                self.hold(&buffer);
                buffer
            }
            Err(error) => {
                self.fail(error);
                self.gpu.placeholder().clone()
            }
        }
    }

    fn hold(&mut self, buffer: &Buffer) {
        if buffer.is_temporary() && !self.held.iter().any(|lease| Arc::ptr_eq(lease, &buffer.lease)) {
            self.held.push(buffer.lease.clone());
        }
    }

    /// Runs a kernel over `grid` workgroups; nothing if one of its extents is 0. `params` is its uniform (`&()` if it has
    /// none), `buffers` are its storage buffers in binding order.
    pub fn dispatch<P: bytemuck::NoUninit>(
        &mut self,
        spec: &KernelSpec,
        params: &P,
        buffers: &[&Buffer],
        grid: [u32; 3],
    ) {
        if self.error.is_some() || grid.contains(&0) {
            return;
        }
        match self.checked_kernel(spec, buffers) {
            Ok(kernel) => {
                buffers.iter().for_each(|buffer| self.hold(buffer));
                let params = self.params(bytemuck::bytes_of(params));
                let buffers = buffers.iter().map(|&buffer| buffer.into()).collect();
                let stage = self.context.stage();
                self.commands.push(Command::Dispatch { stage, kernel, params, buffers, grid });
            }
            Err(error) => self.fail(error),
        }
    }

    fn checked_kernel(&self, spec: &KernelSpec, buffers: &[&Buffer]) -> Result<Arc<Kernel>> {
        let expected = spec.bindings.iter().filter(|bind| **bind != Bind::Params).count();
        if expected != buffers.len() {
            let what = format!("kernel `{}`: expected {expected} buffers, found {}", spec.label, buffers.len());
            return Err(self.gpu.error(what));
        }
        let most = self.gpu.limits().max_storage_buffer_binding_size;
        if let Some(buffer) = buffers.iter().find(|buffer| buffer.bytes() > most) {
            return Err(Error::Limit { what: "a storage buffer binding", need: buffer.bytes(), have: most });
        }
        self.gpu.kernel(spec)
    }

    fn params(&mut self, params: &[u8]) -> Range<usize> {
        let start = self.uniforms.len().next_multiple_of(UNIFORM_ALIGNMENT);
        self.uniforms.resize(start, 0);
        self.uniforms.extend_from_slice(params);
        self.uniforms.resize(self.uniforms.len().next_multiple_of(16), 0);
        start..self.uniforms.len()
    }

    /// Copies the bytes of `from` to the start of `to`.
    pub fn copy(&mut self, from: &Buffer, to: &Buffer) {
        if self.error.is_none() && from.bytes() > 0 {
            self.hold(from);
            self.hold(to);
            self.commands.push(Command::Copy { from: from.into(), to: to.into() });
        }
    }

    /// Fills `buffer` with zeros.
    pub fn clear(&mut self, buffer: &Buffer) {
        if self.error.is_none() && buffer.bytes() > 0 {
            self.hold(buffer);
            self.commands.push(Command::Clear(buffer.into()));
        }
    }

    /// Hands all commands to the device, and does not wait for them. A search that may be cancelled waits for those before:
    /// what the device has been handed it does.
    ///
    /// # Errors
    /// The first error since the last submission, or if the search was cancelled.
    pub fn submit(&mut self) -> Result<()> {
        let submission = self.submit_all()?;
        if self.context.can_be_cancelled()
            && let Some(before) = self.ahead.replace(submission)
        {
            self.gpu.wait(before)?;
        }
        Ok(())
    }

    /// Completes all commands and returns the bytes of `buffer`.
    ///
    /// # Errors
    /// The first error since the last submission, or a failure of the device.
    pub fn read_bytes(&mut self, buffer: &Buffer) -> Result<Vec<u8>> {
        Ok(self.read_all(&[buffer])?.swap_remove(0))
    }

    /// Completes all commands and returns the bytes of each buffer.
    ///
    /// # Errors
    /// As [`Recorder::read_bytes`].
    pub fn read_all(&mut self, buffers: &[&Buffer]) -> Result<Vec<Vec<u8>>> {
        let bytes = buffers.iter().map(|buffer| buffer.bytes()).sum();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let readback = match self.gpu.temporary(bytes, usage) {
            Ok(readback) => readback,
            Err(error) => {
                self.fail(error);
                self.gpu.placeholder().clone()
            }
        };
        let mut start = 0;
        for buffer in buffers {
            self.copy(buffer, &readback.slice(start..start + buffer.bytes()));
            start += buffer.bytes();
        }
        let submission = self.submit_all()?;
        self.context.read_back();
        let all = if bytes == 0 { Vec::new() } else { self.mapped(&readback, submission)? };
        let mut rest = all.as_slice();
        let mut next = |buffer: &&Buffer| {
            let (part, others) = rest.split_at(buffer.bytes() as usize);
            rest = others;
            part.to_vec()
        };
        Ok(buffers.iter().map(&mut next).collect())
    }

    fn mapped(&self, readback: &Buffer, submission: wgpu::SubmissionIndex) -> Result<Vec<u8>> {
        let (sender, receiver) = channel();
        let slice = readback.handle().slice(..readback.bytes());
        let read = self.gpu.guarded("read", || {
            slice.map_async(wgpu::MapMode::Read, move |result| {
                // The receiver is gone only where the read has failed already.
                let _ = sender.send(result);
            });
        });
        let read = read.and_then(|()| self.gpu.wait(submission)).and_then(|()| self.answer(&receiver)).and_then(|()| {
            slice.get_mapped_range().map(|view| view.to_vec()).map_err(|error| self.gpu.failure(error.to_string()))
        });
        // A buffer whose mapping is still pending must not be mapped again by its next user.
        let unmapped = self.gpu.caught("read", || readback.handle().unmap());
        read.and_then(|bytes| unmapped.map(|()| bytes))
    }

    /// Waits for the answer of a mapping whose submission is done. Another thread that polls the device may have taken
    /// it, and be about to pass it on.
    fn answer(&self, receiver: &Receiver<Result<(), wgpu::BufferAsyncError>>) -> Result<()> {
        let start = Instant::now();
        loop {
            match receiver.recv_timeout(Duration::from_millis(20)) {
                Ok(Ok(())) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if start.elapsed() < TIMEOUT => self.gpu.check()?,
                // Only a loss ends a mapping so; a host that keeps its callbacks to itself has not passed it on.
                _ => return Err(self.gpu.failure("results cannot be read: the device is lost".into())),
            }
        }
    }

    fn submit_all(&mut self) -> Result<wgpu::SubmissionIndex> {
        let gpu = self.gpu.clone();
        let submitted = match self.error.take() {
            Some(error) => Err(error),
            None => self.context.check().and_then(|()| self.encode(&gpu)),
        };
        self.commands.clear();
        self.uniforms.clear();
        self.held.clear();
        let submission = std::mem::take(&mut self.submission);
        submission.submitted.store(submitted.is_ok(), Ordering::Release);
        submitted
    }

    fn encode(&self, gpu: &Gpu) -> Result<wgpu::SubmissionIndex> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let arena = gpu.temporary(self.uniforms.len() as u64, usage)?;
        gpu.write(&arena, &self.uniforms)?;
        let kernel = |command: &Command| match command {
            Command::Dispatch { stage, kernel, .. } => Some((*stage, kernel.label)),
            _ => None,
        };
        let timer = Timer::of_search(&self.context, gpu, self.commands.iter().filter_map(kernel))?;
        let mut timed = timer.iter().flat_map(Timer::passes);
        let submission = gpu.guarded("submit", || {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            let dispatches =
                |a: &Command, b: &Command| matches!((a, b), (Command::Dispatch { .. }, Command::Dispatch { .. }));
            for run in self.commands.chunk_by(dispatches) {
                match run {
                    [Command::Copy { from, to }] => {
                        encoder.copy_buffer_to_buffer(&from.buffer, from.offset, &to.buffer, to.offset, from.bytes);
                    }
                    [Command::Clear(part)] => encoder.clear_buffer(&part.buffer, part.offset, Some(part.bytes)),
                    dispatches if timer.is_some() => dispatches.chunks(1).for_each(|dispatch| {
                        encode_pass(gpu, &mut encoder, dispatch, arena.handle(), timed.next());
                    }),
                    dispatches => encode_pass(gpu, &mut encoder, dispatches, arena.handle(), None),
                }
            }
            timer.iter().for_each(|timer| timer.resolve(&mut encoder));
            gpu.queue().submit([encoder.finish()])
        })?;
        self.context.submitted();
        if let Some(timer) = &timer {
            timer.report(&self.mapped(timer.readback(), submission.clone())?);
        }
        Ok(submission)
    }
}

fn encode_pass(
    gpu: &Gpu,
    encoder: &mut wgpu::CommandEncoder,
    dispatches: &[Command],
    arena: &wgpu::Buffer,
    timestamp_writes: Option<wgpu::ComputePassTimestampWrites>,
) {
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
    for command in dispatches {
        if let Command::Dispatch { kernel, params, buffers, grid, .. } = command {
            let mut buffers = buffers.iter();
            let mut resource = |bind: &Bind| match bind {
                Bind::Params => Some(binding(arena, params.start as u64, params.len() as u64)),
                Bind::Uniform | Bind::Read | Bind::Write => {
                    buffers.next().map(|part| binding(&part.buffer, part.offset, part.bytes))
                }
            };
            let entries = (0u32..)
                .zip(kernel.bindings)
                .filter_map(|(binding, bind)| Some(wgpu::BindGroupEntry { binding, resource: resource(bind)? }));
            let group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel.label),
                layout: &kernel.layout,
                entries: &entries.collect::<Vec<_>>(),
            });
            pass.set_pipeline(&kernel.pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        }
    }
}
