//! A device to train on, whichever it is.

use std::sync::Arc;

use super::cpu::{Cpu, CpuOps};
#[cfg(feature = "gpu")]
use super::gpu::{Gpu, GpuBackend, GpuTrainingOps};
use super::{Backend, DeviceKind, TrainingOps};
use crate::Result;
use crate::config::ModelConfig;

/// A device that trains models, and evaluates what it has trained.
#[derive(Clone)]
pub struct TrainingDevice {
    backend: Arc<dyn Backend>,
    #[cfg(feature = "gpu")]
    gpu: Option<Arc<Gpu>>,
}

/// What is to be done with the operations of a [`TrainingDevice`], of whichever type they are.
pub trait WithTrainingOps {
    /// What comes of it.
    type Output;

    /// Does it.
    fn with<B: TrainingOps<Floats: Send + 'static, Ints: 'static> + Send + 'static>(self, ops: B) -> Self::Output;
}

impl TrainingDevice {
    /// The native CPU backend.
    pub fn cpu() -> TrainingDevice {
        TrainingDevice {
            backend: Arc::new(Cpu::default()),
            #[cfg(feature = "gpu")]
            gpu: None,
        }
    }

    /// An open GPU.
    #[cfg(feature = "gpu")]
    pub fn gpu(gpu: &Arc<Gpu>) -> TrainingDevice {
        TrainingDevice { backend: Arc::new(GpuBackend::new(gpu.clone())), gpu: Some(gpu.clone()) }
    }

    /// The device for evaluations.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// What [`select::open_for_training`](super::select::open_for_training) opens the device by: `cpu`, or name and API of a GPU.
    pub fn name(&self) -> String {
        let info = self.backend.info();
        match info.kind {
            DeviceKind::Cpu => "cpu".to_string(),
            _ => format!("{} {}", info.name, info.backend),
        }
    }

    /// This device, or, with a warning, the CPU backend where this one does not train `model`.
    #[must_use]
    pub fn or_cpu(self, model: &ModelConfig) -> TrainingDevice {
        match self.run(Check { model }) {
            Ok(()) => self,
            Err(refused) => {
                log::warn!("training on the CPU: {refused}");
                TrainingDevice::cpu()
            }
        }
    }

    /// Hands new operations of the device to `job`.
    pub fn run<W: WithTrainingOps>(&self, job: W) -> W::Output {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = &self.gpu {
            return job.with(GpuTrainingOps::new(gpu));
        }
        job.with(CpuOps::pooled())
    }
}

/// Fails if the device does not train such a model.
struct Check<'a> {
    model: &'a ModelConfig,
}

impl WithTrainingOps for Check<'_> {
    type Output = Result<()>;

    fn with<B: TrainingOps<Floats: Send + 'static, Ints: 'static> + Send + 'static>(self, ops: B) -> Result<()> {
        ops.check(self.model)
    }
}
