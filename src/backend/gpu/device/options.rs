//! How a device is opened.

use std::path::PathBuf;

use super::cache;
use super::shader_checks::ShaderChecks;
use super::tier::ScanTier;
use crate::Result;
use crate::backend::{DeviceInfo, DeviceKind};

/// How a device is opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GpuOptions {
    /// How it chooses among the kernels that can scan by Mixture-of-Logits.
    pub scan_tier: ScanTier,
    /// Folder for what it learns about its kernels and for compiled pipelines; it is made when there is something to
    /// keep. `None`: nothing outlives the device.
    pub cache: Option<PathBuf>,
    /// The checks that kernels are compiled with.
    pub shader_checks: ShaderChecks,
}

impl GpuOptions {
    /// Sets [`GpuOptions::scan_tier`].
    #[must_use]
    pub fn with_scan_tier(self, scan_tier: ScanTier) -> GpuOptions {
        GpuOptions { scan_tier, ..self }
    }

    /// Sets [`GpuOptions::cache`].
    #[must_use]
    pub fn with_cache(self, cache: impl Into<Option<PathBuf>>) -> GpuOptions {
        GpuOptions { cache: cache.into(), ..self }
    }

    /// Sets [`GpuOptions::shader_checks`].
    #[must_use]
    pub fn with_shader_checks(self, shader_checks: ShaderChecks) -> GpuOptions {
        GpuOptions { shader_checks, ..self }
    }

    /// What the environment says: the scan tier from `RAILS_SCAN_TIER` (`auto`, `registers`, `cooperative`, `timed`), the folder from
    /// `RAILS_CACHE_DIR` (empty: none) or else `rails-wgpu` in the platform's folder for caches; without the variable
    /// a software driver has none. The checks are those that `RAILS_SHADER_CHECKS` names (`bounds`, `full`).
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if there is no such tier, or if there are no such checks.
    pub fn from_env(info: &DeviceInfo) -> Result<GpuOptions> {
        let scan_tier = std::env::var("RAILS_SCAN_TIER").map_or(Ok(ScanTier::Auto), |name| name.parse())?;
        let checks = std::env::var("RAILS_SHADER_CHECKS").map_or(Ok(ShaderChecks::Bounds), |name| name.parse())?;
        let cache = cache::folder(info.kind == DeviceKind::SoftwareGpu);
        Ok(GpuOptions { scan_tier, cache, shader_checks: checks })
    }
}
