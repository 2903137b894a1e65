//! An open device, and the way of every device error into [`Error`].

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::adapter::Adapter;
use super::buffer::Buffer;
use super::host::{check_limits, device_descriptor};
use super::info::{MATRICES, describe, hlsl_compiler};
use super::kernel::{Kernel, KernelSpec};
use super::lock::lock;
use super::matrices::Matrices;
use super::options::GpuOptions;
use super::pipelines::Pipelines;
use super::pool::Pool;
use super::shader_checks::ShaderChecks;
use super::tier::ScanTier;
use super::timing::ScanTiming;
use super::trusted;
use super::tuner::Tuner;
use crate::backend::DeviceInfo;
use crate::{Error, Result};

/// Longest wait for one submission. Far above any sane batch: a software driver may be compiling kernels.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(300);

/// Most bytes of one host-to-device write before it is handed to the device: bounds the staging memory.
const WRITE_BYTES: usize = 64 << 20;

const STORAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// An open device: queue, compiled kernels and free buffers.
#[derive(Debug)]
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: DeviceInfo,
    limits: wgpu::Limits,
    lost: Arc<Mutex<Option<String>>>,
    /// The process that opened it: no driver survives a fork.
    process: u32,
    matrices: Option<Matrices>,
    checks: ShaderChecks,
    kernels: Mutex<HashMap<KernelSpec, Arc<Kernel>>>,
    pipelines: Option<Pipelines>,
    tuner: Tuner,
    pool: Arc<Pool>,
    placeholder: Buffer,
}

impl Gpu {
    /// Opens a device with all limits of its adapter and the optional features that kernels make use of, and with the
    /// options of [`GpuOptions::from_env`].
    ///
    /// # Errors
    /// If the driver refuses, or as [`GpuOptions::from_env`].
    pub fn open(adapter: &Adapter) -> Result<Arc<Gpu>> {
        Gpu::open_with(adapter, &GpuOptions::from_env(&adapter.info)?)
    }

    /// [`Gpu::open`] with options.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn open_with(adapter: &Adapter, options: &GpuOptions) -> Result<Arc<Gpu>> {
        let mut descriptor = device_descriptor(&adapter.handle);
        let matrices = Matrices::of(&adapter.handle);
        if matrices.is_some() {
            descriptor.required_features |= MATRICES.0;
            descriptor.experimental_features = trusted::experimental_features();
        }
        let opened = pollster::block_on(adapter.handle.request_device(&descriptor));
        let (device, queue) = opened.map_err(|error| Error::Device {
            device: adapter.info.name.clone(),
            what: format!("not opened: {error}"),
        })?;
        let gpu = Gpu::new(device, queue, matrices, options)?;
        if hlsl_compiler(adapter.handle.get_info().backend, gpu.device.features()) == Some("FXC") {
            log::warn!(
                "`{}`: shaders are compiled by FXC, which is slow and with which nothing was tested; put `dxcompiler.dll` \
                 (1.8.2502 or later) beside the program, or install a Vulkan driver",
                gpu.info.name
            );
        }
        let lost = gpu.lost.clone();
        gpu.device.set_device_lost_callback(move |reason, message| {
            *lock(&lost) = Some(format!("{reason:?}: {message}"));
        });
        let name = gpu.info.name.clone();
        gpu.device.on_uncaptured_error(Arc::new(move |error| log::error!("device `{name}`: {error}")));
        Ok(Arc::new(gpu))
    }

    /// Works on the device of a host application, with the features and limits that it was opened with:
    /// [`device_descriptor`] gives those to ask for. Its callbacks for errors and loss are left alone. Unless the host passes a
    /// loss on to [`Gpu::mark_lost`], it shows as a failure of the next submission or read. Errors that this crate causes
    /// are caught in error scopes and never reach the callback of the host. Options are those of [`GpuOptions::from_env`];
    /// cooperative matrices are not used.
    ///
    /// # Errors
    /// [`Error::Limit`] if the device was opened with lower compute limits than [`wgpu::Limits::default`], or as
    /// [`GpuOptions::from_env`].
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Result<Arc<Gpu>> {
        let info = describe(&device.adapter_info(), device.features(), &device.limits());
        Ok(Arc::new(Gpu::new(device, queue, None, &GpuOptions::from_env(&info)?)?))
    }

    fn new(device: wgpu::Device, queue: wgpu::Queue, matrices: Option<Matrices>, options: &GpuOptions) -> Result<Gpu> {
        let limits = device.limits();
        check_limits(&limits)?;
        let placeholder = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("placeholder"),
            size: 16,
            usage: STORAGE,
            mapped_at_creation: false,
        });
        let pool = Arc::new(Pool::default());
        pool.reserve(placeholder.size());
        let info = describe(&device.adapter_info(), device.features(), &limits);
        let folder = options.cache.as_deref();
        Ok(Gpu {
            limits,
            lost: Arc::default(),
            process: std::process::id(),
            matrices,
            checks: options.shader_checks,
            kernels: Mutex::default(),
            pipelines: Pipelines::open(&device, folder),
            tuner: Tuner::new(&info, options.scan_tier, folder),
            placeholder: Buffer::permanent(placeholder, 16, &pool),
            pool,
            info,
            device,
            queue,
        })
    }

    /// Changes how scans by Mixture-of-Logits choose their kernels from now on; what was timed stays known.
    pub fn set_scan_tier(&self, tier: ScanTier) {
        self.tuner.set(tier);
    }

    /// Lets scans by Mixture-of-Logits time their kernels anew: choices so far are forgotten, and replaced where they are kept.
    pub fn forget_scan_timings(&self) {
        self.tuner.forget();
    }

    /// What scans by Mixture-of-Logits have timed since the device was opened. Choices that earlier runs have left are not timed
    /// again.
    pub fn scan_timings(&self) -> Vec<ScanTiming> {
        self.tuner.timings()
    }

    pub(crate) fn tuner(&self) -> &Tuner {
        &self.tuner
    }

    pub(crate) fn matrices(&self) -> Option<Matrices> {
        self.matrices
    }

    /// Threads of the widest subgroup, where shaders may ask for theirs.
    pub(crate) fn subgroup(&self) -> Option<usize> {
        let asked = self.device.features().contains(wgpu::Features::SUBGROUP);
        asked.then(|| self.device.adapter_info().subgroup_max_size as usize).filter(|&subgroup| subgroup > 0)
    }

    /// What the device is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Limits that the device was opened with.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// The wgpu device itself.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The wgpu queue itself.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// A small buffer for bindings that a kernel does not look at.
    pub fn placeholder(&self) -> &Buffer {
        &self.placeholder
    }

    /// Bytes of all buffers of this crate on the device: tables, weights, and temporary ones that are used or kept for later.
    pub fn memory_in_use(&self) -> u64 {
        self.pool.in_use()
    }

    /// Keeps [`Gpu::memory_in_use`] at or below `bytes`, so as to leave the rest to others; what does not fit fails with
    /// [`Error::OutOfMemory`]. Without a limit, as at first, the driver says what does not fit.
    pub fn limit_memory(&self, bytes: Option<u64>) {
        self.pool.set_limit(bytes.unwrap_or(u64::MAX));
    }

    /// Whether the device still works.
    ///
    /// # Errors
    /// If it was lost, or this process was forked off the one that opened it.
    pub fn check(&self) -> Result<()> {
        if self.process != std::process::id() {
            let what = "this process was forked off the one that opened the device, and drivers of GPUs do not survive that; \
                        open it in this process, or start processes by other means (`spawn` in Python's multiprocessing)";
            return Err(self.error(what.to_string()));
        }
        self.poll(wgpu::PollType::Poll)?;
        match &*lock(&self.lost) {
            None => Ok(()),
            Some(reason) => {
                Err(self.error(format!("lost ({reason}); move the index to a new device or build the index again")))
            }
        }
    }

    /// Says that the device was lost, and why; later work fails with this reason.
    pub fn mark_lost(&self, reason: &str) {
        lock(&self.lost).get_or_insert_with(|| reason.into());
    }

    /// The compiled kernel, from the cache if it was compiled before.
    ///
    /// # Errors
    /// If the kernel is wrong, or the device cannot run it.
    pub fn kernel(&self, spec: &KernelSpec) -> Result<Arc<Kernel>> {
        let mut kernels = lock(&self.kernels);
        if let Some(kernel) = kernels.get(spec) {
            return Ok(kernel.clone());
        }
        let pipelines = self.pipelines.as_ref();
        let cache = pipelines.map(Pipelines::handle);
        let kernel = self.guarded(spec.label, || Kernel::compile(&self.device, spec, self.checks, cache))?;
        if let Some(pipelines) = pipelines {
            pipelines.compiled();
        }
        Ok(kernels.entry(spec.clone()).or_insert(Arc::new(kernel)).clone())
    }

    /// A buffer of `bytes` bytes (a multiple of 4) for as long as it is referred to, filled with zeros.
    ///
    /// # Errors
    /// If the device has no such limits, or no memory.
    pub fn buffer(&self, bytes: u64) -> Result<Buffer> {
        Ok(Buffer::permanent(self.create(bytes.max(16), bytes, STORAGE)?, bytes, &self.pool))
    }

    /// A buffer as of [`Gpu::buffer`] that holds `data`.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub fn upload<T: bytemuck::NoUninit>(&self, data: &[T]) -> Result<Buffer> {
        let data: &[u8] = bytemuck::cast_slice(data);
        let buffer = self.buffer(data.len() as u64)?;
        self.write(&buffer, data)?;
        Ok(buffer)
    }

    /// A new buffer with this content, for bindings of either kind.
    pub(crate) fn upload_uniform(&self, data: &[f32]) -> Result<Buffer> {
        let data: &[u8] = bytemuck::cast_slice(data);
        let bytes = data.len() as u64;
        let buffer = self.create(bytes.max(16), bytes, STORAGE | wgpu::BufferUsages::UNIFORM)?;
        let buffer = Buffer::permanent(buffer, bytes, &self.pool);
        self.write(&buffer, data)?;
        Ok(buffer)
    }

    /// A buffer from the pool. Its contents are left over from its last use.
    pub(crate) fn temporary(&self, bytes: u64, usage: wgpu::BufferUsages) -> Result<Buffer> {
        let size = Pool::size_class(bytes).min(self.limits.max_buffer_size & !3).max(bytes);
        let buffer = match self.pool.take(usage, size) {
            Some(buffer) => buffer,
            None => self.create(size, bytes, usage)?,
        };
        Ok(Buffer::temporary(buffer, bytes, &self.pool))
    }

    pub(crate) fn temporary_storage(&self, bytes: u64) -> Result<Buffer> {
        self.temporary(bytes, STORAGE)
    }

    pub(crate) fn write(&self, buffer: &Buffer, data: &[u8]) -> Result<()> {
        self.guarded("write", || {
            for (i, chunk) in data.chunks(WRITE_BYTES).enumerate() {
                if i > 0 {
                    self.queue.submit([]);
                }
                self.queue.write_buffer(buffer.handle(), buffer.offset() + (i * WRITE_BYTES) as u64, chunk);
            }
        })
    }

    fn create(&self, size: u64, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        if size > self.limits.max_buffer_size {
            let what = "bytes of one device buffer (smaller with f16, int8, smaller segments or a smaller batch)";
            return Err(Error::Limit { what, need: bytes, have: self.limits.max_buffer_size });
        }
        if !self.pool.reserve(size) {
            return Err(self.out_of_memory(size));
        }
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let create = || self.guarded_for(size, "a new buffer", || self.device.create_buffer(&descriptor));
        let created = match create() {
            // Others may need what is kept for later.
            Err(Error::OutOfMemory { .. }) if self.pool.give_up() > 0 => self.idle().and_then(|()| create()),
            created => created,
        };
        created.inspect_err(|_| self.pool.release(size))
    }

    fn out_of_memory(&self, need: u64) -> Error {
        let limit = Some(self.pool.limit()).filter(|&limit| limit < u64::MAX);
        Error::OutOfMemory { device: self.info.name.clone(), need, in_use: self.pool.in_use(), limit }
    }

    /// Runs `work`, if the device still works, with every error that it causes on this thread caught and returned.
    pub(crate) fn guarded<T>(&self, what: &str, work: impl FnOnce() -> T) -> Result<T> {
        self.guarded_for(0, what, work)
    }

    /// The same for work that takes `need` bytes of the device's memory.
    fn guarded_for<T>(&self, need: u64, what: &str, work: impl FnOnce() -> T) -> Result<T> {
        self.check()?;
        self.caught_for(need, what, work)
    }

    /// Runs `work` with every error that it causes on this thread caught and returned: the callback for errors may be a
    /// host's, and wgpu's own panics.
    pub(crate) fn caught<T>(&self, what: &str, work: impl FnOnce() -> T) -> Result<T> {
        self.caught_for(0, what, work)
    }

    fn caught_for<T>(&self, need: u64, what: &str, work: impl FnOnce() -> T) -> Result<T> {
        let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let value = work();
        let errors: Vec<_> = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
        match errors.first() {
            None => Ok(value),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(self.out_of_memory(need)),
            Some(error) => Err(self.failure(format!("{what}: {error}"))),
        }
    }

    /// Waits until `submission` is done.
    pub(crate) fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        self.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: Some(TIMEOUT) })?;
        self.check()
    }

    /// Waits until nothing is left to do, so that memory given up is free.
    fn idle(&self) -> Result<()> {
        self.poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(TIMEOUT) })?;
        self.check()
    }

    /// The error for `what` went wrong; that of the loss, if the device was lost meanwhile. Such a device refuses everything
    /// in words of its own until it says that it is lost: when all work has ended, and perhaps to another thread, which
    /// is about to pass it on.
    pub(crate) fn failure(&self, what: String) -> Error {
        for _ in 0..5 {
            if let Err(lost) = self.idle() {
                return lost;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.error(what)
    }

    fn poll(&self, kind: wgpu::PollType) -> Result<()> {
        // wgpu panics where the driver reports a loss while it is asked for progress; all its locks are free by then.
        match catch_unwind(AssertUnwindSafe(|| self.device.poll(kind))) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(wgpu::PollError::Timeout)) => {
                Err(self.error(format!("no answer within {} s; use a smaller batch", TIMEOUT.as_secs())))
            }
            // The submission was refused: the reason is the loss, or in the error scopes.
            Ok(Err(wgpu::PollError::WrongSubmissionIndex(..))) => Ok(()),
            Err(_) => {
                self.mark_lost("driver failure");
                Ok(())
            }
        }
    }

    pub(crate) fn error(&self, what: String) -> Error {
        Error::Device { device: self.info.name.clone(), what }
    }
}
