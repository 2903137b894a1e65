//! How a device is opened.

use std::path::PathBuf;

use super::cache;
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

    /// What the environment says: the scan tier from `RAILS_SCAN_TIER` (`auto`, `registers`, `cooperative`, `timed`), the folder from
    /// `RAILS_CACHE_DIR` (empty: none) or else `rails-wgpu` in the platform's folder for caches; without the variable
    /// a software driver has none.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such tier.
    pub fn from_env(info: &DeviceInfo) -> Result<GpuOptions> {
        let scan_tier = std::env::var("RAILS_SCAN_TIER").map_or(Ok(ScanTier::Auto), |name| name.parse())?;
        Ok(GpuOptions { scan_tier, cache: cache::folder(info.kind == DeviceKind::SoftwareGpu) })
    }
}
