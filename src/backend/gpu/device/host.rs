//! The device of a host application: what to open it with, and whether it will do.

use super::info::USEFUL;
use crate::{Error, Result};

/// How to open `adapter` so that this crate runs as fast, and searches as much, as on a device of its own: all limits
/// of the adapter, and those of the optional features `SHADER_F16`, `SUBGROUP`, `TIMESTAMP_QUERY` and `PIPELINE_CACHE` that it has.
/// None of them is required; a host adds what it needs itself to `required_features`.
pub fn device_descriptor(adapter: &wgpu::Adapter) -> wgpu::DeviceDescriptor<'static> {
    let useful = USEFUL.iter().fold(wgpu::Features::empty(), |all, (feature, _)| all | *feature);
    let mut limits = adapter.limits();
    // Metal miscomputes addresses beyond 4 GiB inside one binding.
    limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min((4 << 30) - 4);
    wgpu::DeviceDescriptor {
        label: Some("rails-wgpu"),
        required_features: adapter.features() & useful,
        required_limits: limits,
        ..Default::default()
    }
}

/// Whether a device that was opened with `limits` runs every kernel: it must have the compute limits of
/// [`wgpu::Limits::default`], which every WebGPU device offers. Sizes of buffers and bindings may be any: tables are cut to
/// them.
///
/// # Errors
/// [`Error::Limit`] that names the first limit that is too low.
pub fn check_limits(limits: &wgpu::Limits) -> Result<()> {
    let least = wgpu::Limits::default();
    let pairs = [
        (
            "storage buffers per shader stage",
            least.max_storage_buffers_per_shader_stage,
            limits.max_storage_buffers_per_shader_stage,
        ),
        (
            "bytes of workgroup memory",
            least.max_compute_workgroup_storage_size,
            limits.max_compute_workgroup_storage_size,
        ),
        (
            "invocations per workgroup",
            least.max_compute_invocations_per_workgroup,
            limits.max_compute_invocations_per_workgroup,
        ),
        ("width of a workgroup", least.max_compute_workgroup_size_x, limits.max_compute_workgroup_size_x),
        (
            "workgroups per dimension",
            least.max_compute_workgroups_per_dimension,
            limits.max_compute_workgroups_per_dimension,
        ),
    ];
    match pairs.into_iter().find(|(_, need, have)| have < need) {
        None => Ok(()),
        Some((what, need, have)) => Err(Error::Limit { what, need: need.into(), have: have.into() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::check_limits;
    use crate::Error;

    #[test]
    fn limits_of_webgpu_do_and_those_of_webgl_do_not() {
        check_limits(&wgpu::Limits::default()).unwrap();
        let few = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..wgpu::Limits::default() };
        let error = check_limits(&few).unwrap_err();
        assert!(matches!(error, Error::Limit { need: 8, have: 4, .. }), "{error}");
        check_limits(&wgpu::Limits::downlevel_webgl2_defaults()).unwrap_err();
    }
}
