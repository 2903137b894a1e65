//! A model of the reference with its intermediate tensors, in a folder of `tests/oracle` or elsewhere.

use std::path::{Path, PathBuf};

use rails_wgpu::checkpoint::Checkpoint;
use rails_wgpu::config::find_config;
use rails_wgpu::model::Model;
use rails_wgpu::tensor::Tensor;
use safetensors::SafeTensors;

/// A case.
pub struct Case {
    pub name: String,
    pub checkpoint: Checkpoint,
    pub bytes: Vec<u8>,
    pub model: Model,
}

/// The folder, or file, `name` of the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(name)
}

impl Case {
    pub fn load(folder: &Path) -> Case {
        // Cases without a `.gin` file have their configuration inside.
        let pt = Some(folder.join("model.pt")).filter(|path| path.is_file());
        let checkpoint = Checkpoint::open(pt.unwrap_or_else(|| folder.join("model.safetensors"))).unwrap();
        let model = Model::load(&checkpoint, find_config(&checkpoint, None).unwrap()).unwrap();
        let bytes = std::fs::read(folder.join("oracle.safetensors")).unwrap();
        Case { name: folder.file_name().unwrap().to_string_lossy().into_owned(), checkpoint, bytes, model }
    }

    pub fn find<const N: usize, T>(&self, name: &str, number: fn([u8; N]) -> T) -> Option<(Vec<usize>, Vec<T>)> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).ok()?;
        let values: Vec<T> = tensor.data().chunks_exact(N).map(|bytes| number(bytes.try_into().unwrap())).collect();
        assert_eq!(values.len(), tensor.shape().iter().product::<usize>(), "{name} has another type");
        Some((tensor.shape().to_vec(), values))
    }

    pub fn floats(&self, name: &str) -> Tensor {
        let (shape, values) = self.find(name, f32::from_le_bytes).unwrap_or_else(|| panic!("no {name}"));
        Tensor::new(shape, values).unwrap()
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        self.find(name, i64::from_le_bytes).unwrap_or_else(|| panic!("no {name}")).1
    }

    pub fn item_ids(&self) -> Vec<u32> {
        self.integers("in.all_item_ids").iter().map(|&id| id as u32).collect()
    }
}
