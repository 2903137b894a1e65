//! Writes the inputs that the targets begin with into the folder that is given, a folder for each target: files of `tests/`,
//! the pickles out of those that are archives, and manifests without their checksums.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

// Only linked: it has what the instrumentation calls.
use libfuzzer_sys as _;
use rails_wgpu::Tensor;
use rails_wgpu::checkpoint::save_safetensors;
use zip::ZipArchive;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Longer files make fuzzing slow.
const MAX_BYTES: u64 = 100_000;

/// The short files below `folder` whose names end with one of `endings`.
fn files(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, endings)?);
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending))
            && path.metadata()?.len() <= MAX_BYTES
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// The pickle in a file of PyTorch, if it is an archive with one.
fn pickle(path: &Path) -> Option<Vec<u8>> {
    let mut archive = ZipArchive::new(File::open(path).ok()?).ok()?;
    let name = archive.file_names().flatten().find(|name| name.ends_with("data.pkl"))?.into_owned();
    let mut bytes = Vec::new();
    archive.by_name(&name).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn main() -> Result<()> {
    let out = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: seeds FOLDER")?);
    let tests = harness::root().join("tests");
    let targets = [
        ("pickle", &[".pt", ".pth", ".ckpt"][..]),
        ("gin", &[".gin"]),
        ("safetensors", &[".safetensors"]),
        ("manifest", &["manifest.json"]),
        ("sequences", &[".csv"]),
    ];
    for (target, endings) in targets {
        let folder = out.join(target);
        fs::create_dir_all(&folder)?;
        let found = files(&tests, endings)?;
        for (number, path) in found.iter().enumerate() {
            let bytes = fs::read(path)?;
            let bytes = if target == "manifest" { harness::rest_of_manifest(&bytes).to_vec() } else { bytes };
            fs::write(folder.join(format!("seed-{number}")), bytes)?;
            if let Some(pickle) = pickle(path).filter(|_| target == "pickle") {
                fs::write(folder.join(format!("seed-{number}-pickle")), pickle)?;
            }
        }
        println!("{target}: {} files of {}", found.len(), tests.display());
    }
    // No file of tests/ is a similarity of low-rank components.
    let shapes: [(&str, &[usize]); 9] = [
        ("adapter_v", &[2, 3, 1]),
        ("adapter_u", &[2, 1, 3]),
        ("gate_w1", &[2, 2]),
        ("gate_b1", &[2]),
        ("gate_w2", &[2, 2]),
        ("gate_b2", &[2]),
        ("gate_user_w", &[3, 2]),
        ("gate_item_w", &[3, 2]),
        ("temperature", &[1]),
    ];
    let tensors = shapes.map(|(name, shape)| {
        Tensor::new(shape, vec![0.5; shape.iter().product()]).map(|tensor| (name.to_string(), tensor))
    });
    let tensors = tensors.into_iter().collect::<rails_wgpu::Result<Vec<_>>>()?;
    save_safetensors(&out.join("safetensors/seed-components"), &tensors, &BTreeMap::new())?;
    Ok(())
}
