//! Kernels: what the host says about a WGSL file, and the compiled pipeline.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

/// Most workgroups along one axis of a dispatch that every device can do.
const MAX_GROUPS: u64 = 65535;

/// What a kernel's binding is, in the order of binding numbers from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// The uniform parameters; at most one per kernel.
    Params,
    /// A storage buffer that is only read.
    Read,
    /// A storage buffer that is written.
    Write,
}

/// A kernel: its WGSL text, the values of its overrides, and its bindings (all in group 0). The entry point is `main`.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelSpec {
    /// Name: that of its file in `shaders/`.
    pub label: &'static str,
    /// Whole WGSL files, concatenated in this order: constants and aliases, functions, the kernel.
    pub sources: Vec<Cow<'static, str>>,
    /// Values for the `override`s of the file.
    pub constants: Vec<(&'static str, f64)>,
    /// Its bindings.
    pub bindings: &'static [Bind],
}

impl KernelSpec {
    /// A kernel of one WGSL file, with the file's own constants.
    pub fn new(label: &'static str, source: &'static str, bindings: &'static [Bind]) -> KernelSpec {
        KernelSpec { label, sources: vec![Cow::Borrowed(source)], constants: Vec::new(), bindings }
    }

    /// A kernel of several WGSL files, in this order.
    pub(crate) fn of_files(label: &'static str, files: &[&'static str], bindings: &'static [Bind]) -> KernelSpec {
        let sources = files.iter().map(|&file| Cow::Borrowed(file)).collect();
        KernelSpec { label, sources, constants: Vec::new(), bindings }
    }

    /// The WGSL text as it is compiled.
    pub fn wgsl(&self) -> String {
        self.sources.concat()
    }
}

/// Constants are never NaN.
impl Eq for KernelSpec {}

/// Label and constants tell nearly all kernels apart; reading kilobytes of text for each dispatch would not pay.
impl Hash for KernelSpec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.label.hash(state);
        for (name, value) in &self.constants {
            (name, value.to_bits()).hash(state);
        }
    }
}

/// `wgsl!("room/file.wgsl")`: the text of a file of `shaders/`.
macro_rules! wgsl {
    ($path:expr) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $path))
    };
}
pub(crate) use wgsl;

/// Size and field offsets, in bytes, of a struct of uniform parameters on the host's side.
#[derive(Clone, Copy, Debug)]
pub struct ParamsLayout {
    /// Bytes of the struct.
    pub size: usize,
    /// Name and offset of each field.
    pub fields: &'static [(&'static str, usize)],
}

/// `params!(Name { field: u32, ... })`: the host's side of a kernel's `Params`, and its layout.
macro_rules! params {
    ($name:ident { $($field:ident: $type:ty),+ }) => {
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type),+
        }

        impl $name {
            pub(crate) const LAYOUT: $crate::backend::gpu::device::ParamsLayout = $crate::backend::gpu::device::ParamsLayout {
                size: size_of::<$name>(),
                fields: &[$((stringify!($field), std::mem::offset_of!($name, $field))),+],
            };
        }
    };
}
pub(crate) use params;

/// A compiled kernel.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) label: &'static str,
    pub(crate) bindings: &'static [Bind],
    pub(crate) layout: wgpu::BindGroupLayout,
    pub(crate) pipeline: wgpu::ComputePipeline,
}

impl Kernel {
    pub(crate) fn compile(device: &wgpu::Device, spec: &KernelSpec, cache: Option<&wgpu::PipelineCache>) -> Kernel {
        let label = Some(spec.label);
        let entries: Vec<_> = (0u32..).zip(spec.bindings).map(|(binding, bind)| layout_entry(binding, *bind)).collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(spec.wgsl().into()),
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &spec.constants,
                // Kernels write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
            },
            cache,
        });
        Kernel { label: spec.label, bindings: spec.bindings, layout, pipeline }
    }
}

fn layout_entry(binding: u32, bind: Bind) -> wgpu::BindGroupLayoutEntry {
    let ty = match bind {
        Bind::Params => wgpu::BufferBindingType::Uniform,
        Bind::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Bind::Write => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// A grid of at least `groups` workgroups, folded to two axes where one is too short. A kernel numbers its groups
/// `workgroup_id.x + workgroup_id.y * num_workgroups.x` and ignores those beyond `groups`.
pub fn grid_1d(groups: u64) -> [u32; 3] {
    let y = groups.div_ceil(MAX_GROUPS).max(1);
    [groups.div_ceil(y) as u32, y as u32, 1]
}

#[cfg(test)]
mod tests {
    use super::grid_1d;

    #[test]
    fn grids_cover_all_groups_with_little_waste() {
        assert_eq!(grid_1d(0), [0, 1, 1]);
        assert_eq!(grid_1d(65535), [65535, 1, 1]);
        assert_eq!(grid_1d(65536), [32768, 2, 1]);
        for groups in [1, 7, 65537, 1_000_003, 4_000_000_000] {
            let [x, y, _] = grid_1d(groups).map(u64::from);
            assert!(x <= 65535 && y <= 65535 && x * y >= groups && x * y - groups < y);
        }
    }
}
