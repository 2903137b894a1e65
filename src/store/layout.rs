//! Where the tensors of a shard lie: the safetensors header, made and read.
//!
//! Every tensor begins at a multiple of [`ALIGN`] bytes, so that a mapped one can be used in place. Safetensors allows no
//! holes: the bytes between two tensors are themselves tensors, which begin with [`PADDING`] and are never shown.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::tensor::Metadata;
use serde_json::{Map, Value, json};

use super::checksum::BLOCK;
use super::{Dtype, TensorSpec};
use crate::tensor_header;

/// Tensors begin at multiples of this: a cache line, and more than any element type needs.
pub(super) const ALIGN: usize = 64;

/// What names of padding begin with; names of tensors may not.
pub(super) const PADDING: &str = "__";

/// The one tensor of a file that is a database.
pub(super) const DATABASE: &str = "database";

/// Name that safetensors reserves for metadata.
const METADATA: &str = "__metadata__";

/// Bytes before the JSON: its length.
const LENGTH: usize = size_of::<u64>();

/// Safetensors readers refuse longer headers.
pub(super) const MAX_HEADER: usize = 100_000_000;

/// The contents of a shard.
#[derive(Debug, PartialEq)]
pub(super) struct Layout {
    pub header_bytes: usize,
    /// In the order of the file, without gaps.
    pub sections: Vec<Section>,
    pub metadata: BTreeMap<String, String>,
}

/// A tensor and the padding after it.
#[derive(Debug, PartialEq)]
pub(super) struct Section {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Where it begins in the file.
    pub start: usize,
    /// Bytes of the tensor.
    pub bytes: usize,
    /// Position of its first block among the checksums of the shard; 0 is the header's.
    pub first_block: usize,
}

impl Section {
    /// The tensor's bytes in the file.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.bytes
    }

    /// Bytes of the tensor and its padding.
    pub fn padded(&self) -> usize {
        self.bytes.next_multiple_of(ALIGN)
    }

    pub fn n_blocks(&self) -> usize {
        self.padded().div_ceil(BLOCK)
    }

    /// Bytes of block `block` of this section in the file.
    pub fn block(&self, block: usize) -> Range<usize> {
        let start = block * BLOCK;
        self.start + start..self.start + self.padded().min(start + BLOCK)
    }
}

impl Layout {
    /// Lays out `tensors` in their order; also the bytes of the header.
    ///
    /// `Err` says what is wrong with the tensors or the metadata.
    pub fn plan(metadata: BTreeMap<String, String>, tensors: &[TensorSpec]) -> Result<(Layout, Vec<u8>), String> {
        let mut header = Map::new();
        let mut sections = Vec::new();
        let (mut end, mut first_block) = (0usize, 1);
        for TensorSpec { name, dtype, shape } in tensors {
            if name.starts_with(PADDING) || name.is_empty() {
                return Err(format!("the name `{name}`"));
            }
            let bytes = n_bytes(*dtype, shape);
            let after = bytes.and_then(|bytes| end.checked_add(bytes)?.checked_next_multiple_of(ALIGN));
            let (Some(bytes), Some(after)) = (bytes, after) else {
                return Err(format!("`{name}` of {dtype} and shape {shape:?}"));
            };
            let data_end = end + bytes;
            let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [end, data_end] });
            if header.insert(name.clone(), entry).is_some() {
                return Err(format!("`{name}` twice"));
            }
            if data_end < after {
                let entry = json!({ "dtype": "U8", "shape": [after - data_end], "data_offsets": [data_end, after] });
                header.insert(format!("{PADDING}{}", sections.len()), entry);
            }
            let (name, shape) = (name.clone(), shape.clone());
            sections.push(Section { name, dtype: *dtype, shape, start: end, bytes, first_block });
            first_block += sections.last().map_or(0, Section::n_blocks);
            end = after;
        }
        header.insert(METADATA.to_string(), json!(metadata));

        let text = Value::Object(header).to_string();
        let header_bytes = (LENGTH + text.len()).next_multiple_of(ALIGN);
        if header_bytes > MAX_HEADER {
            return Err(format!("a header of {header_bytes} bytes"));
        }
        if end.checked_add(header_bytes).is_none() {
            return Err("more bytes than this machine can address".to_string());
        }
        sections.iter_mut().for_each(|section| section.start += header_bytes);
        let mut bytes = ((header_bytes - LENGTH) as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(header_bytes, b' ');
        Ok((Layout { header_bytes, sections, metadata }, bytes))
    }

    /// Of a file that holds a database of `bytes` and no header.
    ///
    /// `Err` says what is wrong with the length.
    pub fn of_database(bytes: usize) -> Result<Layout, String> {
        if !bytes.is_multiple_of(ALIGN) {
            return Err(format!("a database of {bytes} bytes"));
        }
        let (name, shape) = (DATABASE.to_string(), vec![bytes]);
        let section = Section { name, dtype: Dtype::U8, shape, start: 0, bytes, first_block: 1 };
        Ok(Layout { header_bytes: 0, sections: vec![section], metadata: BTreeMap::new() })
    }

    /// Reads the header of a file of `file_bytes`; what does not fill that file exactly is refused.
    ///
    /// `Err` says what is wrong.
    pub fn parse(header: &[u8], file_bytes: usize) -> Result<Layout, String> {
        let (length, text) = header.split_first_chunk().ok_or("the header is too short")?;
        if u64::from_le_bytes(*length) != text.len() as u64 {
            return Err("the header has another length than the manifest says".to_string());
        }
        tensor_header::check_names(text)?;
        // Checks that ranges have no gaps and fit the shapes.
        let found: Metadata = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let mut tensors: Vec<_> = found.tensors().into_iter().filter(|(name, _)| !name.starts_with(PADDING)).collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);

        let mut sections = Vec::new();
        let (mut end, mut first_block) = (header.len(), 1);
        for (name, info) in tensors {
            let bytes = info.data_offsets.1 - info.data_offsets.0;
            let after = end.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(ALIGN));
            let Some(after) = after.filter(|_| info.data_offsets.0 == end - header.len()) else {
                return Err(format!(
                    "tensor `{name}` does not begin at the first multiple of {ALIGN} after the last one"
                ));
            };
            sections.push(Section {
                name,
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: end,
                bytes,
                first_block,
            });
            first_block += sections.last().map_or(0, Section::n_blocks);
            end = after;
        }
        if end != file_bytes || !header.len().is_multiple_of(ALIGN) {
            return Err(format!("the tensors end at byte {end}, the file at {file_bytes}"));
        }
        let metadata = found.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Layout { header_bytes: header.len(), sections, metadata })
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> usize {
        self.sections.last().map_or(self.header_bytes, |last| last.start + last.padded())
    }

    /// Checksums of the whole file, that of the header included.
    pub fn n_checksums(&self) -> usize {
        self.sections.last().map_or(1, |last| last.first_block + last.n_blocks())
    }

    pub fn position(&self, name: &str) -> Option<usize> {
        self.sections.iter().position(|section| section.name == name)
    }
}

/// Bytes of a tensor; `None` if they are not a whole number, or too many for this machine.
fn n_bytes(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let values = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))?;
    let bits = values.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.to_string(), dtype, shape: shape.to_vec() }
    }

    fn metadata() -> BTreeMap<String, String> {
        BTreeMap::from([("kind".to_string(), "test".to_string())])
    }

    #[test]
    fn a_header_says_what_was_planned() {
        let tensors = [
            spec("b", Dtype::F32, &[3, 5]),
            spec("a", Dtype::U64, &[8]),
            spec("empty", Dtype::F16, &[0, 4]),
            spec("scalar", Dtype::F64, &[]),
            spec("long", Dtype::U8, &[2 * BLOCK + 1]),
        ];
        let (layout, header) = Layout::plan(metadata(), &tensors).unwrap();
        let base = header.len();
        assert_eq!(base % 64, 0);
        let starts: Vec<usize> = layout.sections.iter().map(|section| section.start - base).collect();
        assert_eq!(starts, [0, 64, 128, 128, 192]);
        assert_eq!(layout.file_bytes() - base, 192 + 2 * BLOCK + 64);
        let firsts: Vec<usize> = layout.sections.iter().map(|section| section.first_block).collect();
        assert_eq!(firsts, [1, 2, 3, 3, 4]);
        assert_eq!(layout.n_checksums(), 7);
        assert_eq!(layout.sections[4].block(2), base + 192 + 2 * BLOCK..base + 192 + 2 * BLOCK + 64);
        assert_eq!(Layout::parse(&header, layout.file_bytes()).unwrap(), layout);
    }

    #[test]
    fn a_shard_may_be_empty() {
        let (layout, header) = Layout::plan(BTreeMap::new(), &[]).unwrap();
        assert_eq!((layout.file_bytes(), layout.n_checksums()), (header.len(), 1));
        assert_eq!(Layout::parse(&header, header.len()).unwrap(), layout);
    }

    #[test]
    fn impossible_tensors_are_refused() {
        let cases = [
            (vec![spec("__1", Dtype::U8, &[1])], "`__1`"),
            (vec![spec("", Dtype::U8, &[1])], "``"),
            (vec![spec("a", Dtype::U8, &[1]), spec("a", Dtype::F32, &[2])], "`a` twice"),
            (vec![spec("a", Dtype::F32, &[usize::MAX, 2])], "shape"),
            (vec![spec("a", Dtype::U8, &[usize::MAX])], "shape"),
            ((0..8).map(|i| spec(&format!("a{i}"), Dtype::U8, &[usize::MAX / 8 - 63])).collect(), "address"),
            ((0..9).map(|i| spec(&format!("a{i}"), Dtype::U8, &[usize::MAX / 8 - 63])).collect(), "`a8`"),
            (vec![spec("a", Dtype::F4, &[3])], "F4"),
        ];
        for (tensors, word) in cases {
            let error = Layout::plan(BTreeMap::new(), &tensors).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn foreign_headers_are_refused() {
        let header = |text: &str| {
            let mut bytes = (text.len().next_multiple_of(64) as u64 + 56).to_le_bytes().to_vec();
            bytes.extend(text.as_bytes());
            bytes.resize(text.len().next_multiple_of(64) + 64, b' ');
            bytes
        };
        let parse = |text: &str, data: usize| {
            let header = header(text);
            Layout::parse(&header, header.len().wrapping_add(data))
        };
        let one = r#"{"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}"#;
        assert_eq!(parse(one, 64).unwrap().sections[0].bytes, 64);
        assert!(parse(one, 128).is_err());
        assert!(parse(one, 0).is_err());
        assert!(parse("{", 0).is_err());
        assert!(parse(r#"{"a":{"dtype":"U9","shape":[64],"data_offsets":[0,64]}}"#, 64).is_err());
        assert!(parse(r#"{"a":{"dtype":"U8","shape":[63],"data_offsets":[0,64]}}"#, 64).is_err());
        assert!(parse(r#"{"a":{"dtype":"U8","shape":[64],"data_offsets":[64,0]}}"#, 64).is_err());
        let unaligned = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
            "b":{"dtype":"U8","shape":[60],"data_offsets":[4,64]}}"#;
        assert!(parse(unaligned, 64).unwrap_err().contains("`b` does not begin"));
        let huge = format!(r#"{{"a":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#, usize::MAX);
        assert!(parse(&huge, usize::MAX).is_err());
        assert!(Layout::parse(&[1, 2, 3], 3).is_err());
        assert!(Layout::parse(&header(one)[..64], 128).unwrap_err().contains("length"));
    }
}
