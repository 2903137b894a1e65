//! What a GPU can do at most, measured by kernels that do nothing else.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use rails_wgpu::backend::gpu::{Bind, Buffer, Gpu, KernelSpec, Recorder};
use rails_wgpu::search::profiled;
use rails_wgpu::{Error, Result};

/// Workgroups of every kernel here; more threads than any device runs at once.
const GROUPS: u32 = 4096;
const THREADS: u64 = GROUPS as u64 * 256;
/// Operations of one round of a thread: 8 times 16 chains.
const STEPS: u64 = 8 * 16;

/// A unit of a GPU that kernels compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Fused multiply-adds of 32-bit floats.
    F32,
    /// Fused multiply-adds of 16-bit floats.
    F16,
    /// Products of four packed 8-bit integers.
    I8,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::F32 => "f32",
            Unit::F16 => "f16",
            Unit::I8 => "int8",
        }
    }

    fn kernel(self) -> KernelSpec {
        const BINDINGS: &[Bind] = &[Bind::Params, Bind::Write];
        match self {
            Unit::F32 => KernelSpec::new("fma_f32", include_str!("../shaders/fma_f32.wgsl"), BINDINGS),
            Unit::F16 => KernelSpec::new("fma_f16", include_str!("../shaders/fma_f16.wgsl"), BINDINGS),
            Unit::I8 => KernelSpec::new("dot4_i8", include_str!("../shaders/dot4_i8.wgsl"), BINDINGS),
        }
    }

    fn params(self, rounds: u32) -> [u32; 4] {
        match self {
            Unit::F32 | Unit::F16 => [rounds, 0.5f32.to_bits(), 0.25f32.to_bits(), (-1.0f32).to_bits()],
            Unit::I8 => [rounds, 0x0305_0709, 0, 0],
        }
    }

    fn operations_of_a_step(self) -> u64 {
        match self {
            Unit::F32 | Unit::F16 => 2,
            Unit::I8 => 8,
        }
    }
}

/// The peak of one unit.
pub struct UnitPeak {
    pub unit: Unit,
    gpu: Arc<Gpu>,
    sink: Buffer,
    /// As many as take some milliseconds.
    rounds: Cell<u32>,
}

impl UnitPeak {
    /// Finds out how much work takes at least `least`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(gpu: &Arc<Gpu>, unit: Unit, least: Duration) -> Result<UnitPeak> {
        let peak = UnitPeak { unit, gpu: gpu.clone(), sink: gpu.buffer(16)?, rounds: Cell::new(1) };
        while peak.time()? < least && peak.rounds.get() < 1 << 20 {
            peak.rounds.set(2 * peak.rounds.get());
        }
        Ok(peak)
    }

    fn time(&self) -> Result<Duration> {
        let params = self.unit.params(self.rounds.get());
        timed(&self.gpu, &self.unit.kernel(), &params, &[&self.sink])
    }

    /// 10^9 operations per second; a product and a sum are two.
    ///
    /// # Errors
    /// If the device fails.
    pub fn measure(&self) -> Result<f64> {
        let operations = THREADS * u64::from(self.rounds.get()) * STEPS * self.unit.operations_of_a_step();
        Ok(operations as f64 / self.time()?.as_secs_f64() / 1e9)
    }
}

/// The peak of memory.
pub struct ReadPeak {
    gpu: Arc<Gpu>,
    values: Buffer,
    sink: Buffer,
}

impl ReadPeak {
    /// Reads about so many bytes, fewer if the device binds no more.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn new(gpu: &Arc<Gpu>, bytes: u64) -> Result<ReadPeak> {
        const UNIT: u64 = 4 * THREADS * 16;
        let most = gpu.limits().max_storage_buffer_binding_size.min(gpu.limits().max_buffer_size);
        let values = gpu.buffer(bytes.min(most).max(UNIT) / UNIT * UNIT)?;
        Ok(ReadPeak { gpu: gpu.clone(), values, sink: gpu.buffer(16)? })
    }

    /// 10^9 bytes per second.
    ///
    /// # Errors
    /// If the device fails.
    pub fn measure(&self) -> Result<f64> {
        const BINDINGS: &[Bind] = &[Bind::Params, Bind::Read, Bind::Write];
        let kernel = KernelSpec::new("read", include_str!("../shaders/read.wgsl"), BINDINGS);
        let params = [(self.values.bytes() / 16) as u32, (-1.0f32).to_bits(), 0, 0];
        let time = timed(&self.gpu, &kernel, &params, &[&self.values, &self.sink])?;
        Ok(self.values.bytes() as f64 / time.as_secs_f64() / 1e9)
    }
}

/// What one dispatch takes, by the timestamps of the device.
fn timed(gpu: &Arc<Gpu>, kernel: &KernelSpec, params: &[u32; 4], buffers: &[&Buffer]) -> Result<Duration> {
    let (done, kernels) = profiled(|context| {
        let mut recorder = Recorder::with_context(context, gpu);
        recorder.dispatch(kernel, params, buffers, [GROUPS, 1, 1]);
        recorder.submit()
    });
    done?;
    let name = || gpu.info().name.clone();
    let missing = || Error::argument("device", "one with timestamps (timestamp-query)", name());
    kernels.first().map(|kernel| kernel.time.max(Duration::from_nanos(1))).ok_or_else(missing)
}
