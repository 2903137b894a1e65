//! The three calls of wgpu that the compiler cannot vouch for.

/// Permission to use cooperative matrices, which wgpu calls experimental.
#[allow(unsafe_code, reason = "wgpu has no safe constructor; see the SAFETY comment")]
pub(crate) fn experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: the caller acknowledges that wgpu's code for experimental features may have mistakes of its own. It is asked for by
    // devices only whose driver reports the very matrices that one kernel uses; that kernel is ours, keeps every load and
    // store within buffers whose sizes are computed beside it (`coop.rs`), and its matrix operations lie in control flow that
    // is uniform within a subgroup, which is what the feature demands of shaders.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// A pipeline cache that starts with `data`, bytes of an earlier one's [`wgpu::PipelineCache::get_data`].
#[allow(unsafe_code, reason = "wgpu has no safe constructor; see the SAFETY comment")]
pub(crate) fn pipeline_cache(device: &wgpu::Device, data: Option<&[u8]>) -> wgpu::PipelineCache {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("rails-wgpu"), data, fallback: true };
    // SAFETY: data must come from `get_data` of a device with the same `pipeline_cache_key`. `pipelines.rs` names its file by that
    // key, takes only what follows its own header with the right length and checksum, so neither a torn nor a foreign
    // file, and wgpu checks device, driver and layout by a header of its own, and starts empty (`fallback`) where they are
    // others. What no program can rule out is somebody who forges a file in the user's own cache folder.
    unsafe { device.create_pipeline_cache(&descriptor) }
}

/// A module of files of `shaders/`, without the counter that wgpu puts into every loop; all other checks stay.
#[allow(unsafe_code, reason = "wgpu has no safe constructor; see the SAFETY comment")]
pub(crate) fn shader_module(device: &wgpu::Device, descriptor: wgpu::ShaderModuleDescriptor) -> wgpu::ShaderModule {
    let checks = wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: no loop may be endless. The text is that of files of this crate, as [`KernelSpec::loops_end`](super::KernelSpec) says:
    // nobody else can set it, and what callers bring along is compiled with all checks. The header of each file names where its
    // loops end: at constants, at parameters of the dispatch, or at the length of a hit list, which no scan lets exceed the capacity
    // that it was planned with; searches halve what is left. Counters go up by constants from below their ends, and these are
    // sizes of buffers below 2^30, so none wraps around. `RAILS_SHADER_CHECKS=full` compiles everything with all checks.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}
