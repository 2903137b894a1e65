//! Kernels as wgpu hands them to a Vulkan driver.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use naga::ShaderStage;
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use rails_wgpu::backend::gpu::KernelSpec;

/// Where the text of the files of a kernel comes from.
pub struct Shaders {
    /// Files of a folder, by what they are called; empty: those that were compiled into the library.
    files: HashMap<String, String>,
}

impl Shaders {
    /// Those of the library.
    pub fn compiled() -> Shaders {
        Shaders { files: HashMap::new() }
    }

    /// Those below `folder`, which are read now.
    pub fn of_folder(folder: &Path) -> Result<Shaders, String> {
        let mut files = HashMap::new();
        for path in files_below(folder)? {
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            files.insert(name_of(&text).to_string(), text);
        }
        Ok(Shaders { files })
    }

    /// The text of a kernel.
    pub fn text(&self, spec: &KernelSpec) -> String {
        spec.sources().map(|source| self.files.get(name_of(source)).map_or(source, String::as_str)).collect()
    }
}

/// What the header of a file calls it; empty for constants of the host.
fn name_of(text: &str) -> &str {
    text.strip_prefix("// ").and_then(|text| text.split_once(": ")).map_or("", |(name, _)| name)
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let error = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

/// How a module is written.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    /// Every loop counts its turns.
    pub loops: bool,
}

/// SPIR-V of a kernel, and what its bindings are.
pub struct Compiled {
    pub words: Vec<u32>,
    /// Whether each binding is a uniform buffer.
    pub uniforms: Vec<bool>,
}

/// With the options of wgpu's Vulkan backend on a device with robustBufferAccess2.
pub fn compiled(spec: &KernelSpec, wgsl: &str, checks: Checks) -> Result<Compiled, String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|error| error.emit_to_string(wgsl))?;
    let capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SUBGROUP
        | Capabilities::COOPERATIVE_MATRIX;
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    let info = info.map_err(|error| error.emit_to_string(wgsl))?;
    let constants = spec.constants().iter().map(|(name, value)| (name.to_string(), *value)).collect();
    let entry = Some((ShaderStage::Compute, "main"));
    let resolved = naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants);
    let (module, info) = resolved.map_err(|error| error.to_string())?;
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer: BoundsCheckPolicy::Unchecked,
            image_load: BoundsCheckPolicy::Unchecked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: checks.loops,
        emit_int_div_checks: true,
        ..spv::Options::default()
    };
    let entry = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into() };
    let words = spv::write_vec(&module, &info, &options, Some(&entry)).map_err(|error| error.to_string())?;
    let bound = module.global_variables.iter().filter_map(|(_, variable)| {
        let binding = variable.binding?;
        Some((binding.binding as usize, variable.space == naga::AddressSpace::Uniform))
    });
    let mut uniforms = vec![false; spec.bindings().len()];
    for (binding, uniform) in bound {
        *uniforms.get_mut(binding).ok_or("a binding that the host does not know")? = uniform;
    }
    Ok(Compiled { words, uniforms })
}
