//! Token embeddings of a file: those of all items one after the other, and how many each has.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{ItemSource, Items};
use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;
use crate::{Error, Result};

/// The tensor, or the second part of the name of the file, with the number of token embeddings of each item.
pub(super) const LENGTHS: &str = "lengths";

/// Numbers of a chunk, of at least one item.
const NUMBERS: usize = 4 << 20;

/// A checked file of token embeddings.
pub(super) struct TokenFile {
    /// (N)
    ids: Vec<u64>,
    /// (N + 1): where the rows of each item begin, and the end; strictly ascending.
    offsets: Vec<usize>,
    /// D.
    dim: usize,
    /// Reads some of the T * D numbers.
    read: Box<ReadNumbers>,
}

type ReadNumbers = dyn Fn(Range<usize>) -> Vec<f32>;

impl TokenFile {
    /// Of the file at `path`, with `embeddings` of this `shape` that `read` reads.
    ///
    /// # Errors
    /// If ids, lengths and shape do not belong together.
    pub fn new(
        path: &Path,
        shape: &[usize],
        ids: Option<Vec<u64>>,
        lengths: Option<Vec<u64>>,
        read: Box<ReadNumbers>,
    ) -> Result<TokenFile> {
        let wrong = |what: String| wrong(path.to_path_buf(), what);
        let (n_vectors, dim, lengths) = match (shape, lengths) {
            (&[n_vectors, dim], Some(lengths)) if dim > 0 => (n_vectors, dim, lengths),
            (&[n_items, n, dim], None) if n > 0 && dim > 0 => {
                let n_vectors = n_items.checked_mul(n).ok_or_else(|| wrong(format!("{shape:?} token embeddings")))?;
                (n_vectors, dim, vec![n as u64; n_items])
            }
            (_, lengths) => {
                let with = if lengths.is_some() { "with" } else { "without" };
                return Err(wrong(format!(
                    "embeddings of shape {shape:?} {with} lengths; expected (T, D) with the lengths (N) of items, or (N, n, D) \
                     without"
                )));
            }
        };
        let n_items = lengths.len();
        let ids = ids.unwrap_or_else(|| (0..n_items as u64).collect());
        if ids.len() != n_items {
            return Err(wrong(format!("{} ids, but token embeddings of {n_items} items", ids.len())));
        }
        if let Some(at) = lengths.iter().position(|&length| length == 0) {
            return Err(wrong(format!("item {at} (id {}) has no token embedding; expected at least 1 each", ids[at])));
        }
        let mut offsets = vec![0];
        let mut end = 0usize;
        for length in lengths {
            end = end.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            offsets.push(end);
        }
        match end == n_vectors {
            true => Ok(TokenFile { ids, offsets, dim, read }),
            false => Err(wrong(format!("lengths that add up to {end}, for {n_vectors} token embeddings"))),
        }
    }

    /// The items, a chunk at a time.
    pub fn into_source(self) -> ItemSource<'static> {
        let (n_items, mut from) = (self.ids.len(), 0);
        let chunks = std::iter::from_fn(move || {
            let TokenFile { ids, offsets, dim, .. } = &self;
            let mut to = from;
            while to < n_items && (to == from || (offsets[to + 1] - offsets[from]) * dim <= NUMBERS) {
                to += 1;
            }
            let items = from..to;
            from = to;
            let ids = ids[items.clone()].to_vec();
            (!items.is_empty()).then(|| Ok(Items::of_tokens(ids, self.embeddings(items)?)))
        });
        ItemSource::new(n_items, chunks)
    }

    /// Those of some items.
    fn embeddings(&self, items: Range<usize>) -> Result<TokenEmbeddings> {
        let rows = self.offsets[items.start]..self.offsets[items.end];
        let numbers = (self.read)(rows.start * self.dim..rows.end * self.dim);
        let lengths: Vec<usize> = items.map(|item| self.offsets[item + 1] - self.offsets[item]).collect();
        TokenEmbeddings::new(Tensor::new([rows.len(), self.dim], numbers)?, &lengths)
    }
}

fn wrong(path: PathBuf, what: String) -> Error {
    let fix = "give a .safetensors file with `ids` (N), `lengths` (N) and `embeddings` (T, D), or .npy files: (T, D) in items.npy and \
               (N) in items.lengths.npy beside it"
        .to_string();
    Error::Checkpoint { path, what, fix }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use safetensors::Dtype;
    use safetensors::tensor::{TensorView, serialize};

    use super::super::npy::tests::npy;
    use super::*;

    /// Three items, of two, one and three token embeddings.
    const VECTORS: [f32; 12] = [1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 2.0, 0.0, 0.0, -2.0, 3.0, 4.0];

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn integers(values: &[i64]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn save(path: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (name.to_string(), TensorView::new(*dtype, shape.to_vec(), data).unwrap())
        });
        std::fs::write(path, serialize(views, None).unwrap()).unwrap();
    }

    fn read(path: &Path) -> Result<(Vec<u64>, Vec<Vec<f32>>)> {
        let (mut ids, mut vectors) = (Vec::new(), Vec::new());
        for chunk in ItemSource::of_token_file(path)?.into_chunks() {
            let chunk = chunk?;
            let tokens = chunk.token_embeddings.unwrap();
            assert_eq!(chunk.embeddings, tokens.means());
            ids.extend(chunk.ids);
            vectors.extend((0..tokens.len()).map(|item| tokens.vectors_of(item).to_vec()));
        }
        Ok((ids, vectors))
    }

    #[test]
    fn token_embeddings_of_both_kinds_of_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let items = [&VECTORS[..4], &VECTORS[4..6], &VECTORS[6..]].map(<[f32]>::to_vec).to_vec();
        std::fs::write(at("items.npy"), npy(1, "<f4", "(6, 2)", &floats(&VECTORS))).unwrap();
        std::fs::write(at("items.lengths.npy"), npy(1, "<i8", "(3,)", &integers(&[2, 1, 3]))).unwrap();
        assert_eq!(read(&at("items.npy")).unwrap(), (vec![0, 1, 2], items.clone()));
        std::fs::write(at("items.ids.npy"), npy(1, "<i8", "(3,)", &integers(&[9, 4, 7]))).unwrap();
        assert_eq!(read(&at("items.npy")).unwrap(), (vec![9, 4, 7], items.clone()));
        let half =
            |values: &[f32]| values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect::<Vec<u8>>();
        let (ids, lengths) =
            (("ids", Dtype::I64, &[3][..], integers(&[9, 4, 7])), [2i32, 1, 3].map(i32::to_le_bytes).concat());
        let file =
            [ids.clone(), ("lengths", Dtype::I32, &[3], lengths), ("embeddings", Dtype::F16, &[6, 2], half(&VECTORS))];
        save(&at("items.safetensors"), &file);
        assert_eq!(read(&at("items.safetensors")).unwrap(), (vec![9, 4, 7], items));

        // Of the same length all.
        let pairs = VECTORS.chunks(4).map(<[f32]>::to_vec).collect();
        std::fs::write(at("pairs.npy"), npy(1, "<f4", "(3, 2, 2)", &floats(&VECTORS))).unwrap();
        assert_eq!(read(&at("pairs.npy")).unwrap(), (vec![0, 1, 2], Vec::clone(&pairs)));
        save(&at("pairs.safetensors"), &[ids, ("embeddings", Dtype::F32, &[3, 2, 2], floats(&VECTORS))]);
        assert_eq!(read(&at("pairs.safetensors")).unwrap(), (vec![9, 4, 7], pairs));
    }

    #[test]
    fn many_are_read_in_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.npy");
        // Three items in two chunks, of a width at which two are as much as a chunk may have.
        let dim = NUMBERS / 4;
        let values: Vec<f32> = (0..6).flat_map(|row| std::iter::repeat_n(row as f32, dim)).collect();
        let data: Vec<u8> = values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect();
        std::fs::write(&path, npy(1, "<f2", &format!("(3, 2, {dim})"), &data)).unwrap();
        let chunks = ItemSource::of_token_file(&path).unwrap().into_chunks().map(|chunk| chunk.unwrap().ids);
        assert_eq!(chunks.collect::<Vec<_>>(), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let refused = |words: &[&str]| {
            let error = read(&at("items.npy")).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
        };
        std::fs::write(at("items.npy"), npy(1, "<f4", "(6, 2)", &floats(&VECTORS))).unwrap();
        refused(&["shape [6, 2] without lengths", "(T, D) with the lengths (N)", "items.lengths.npy"]);
        for (lengths, words) in [
            (&[2, 0, 4][..], "item 1 (id 1) has no token embedding"),
            (&[2, -1, 5], "a length -1; expected 0 or more"),
            (&[2, 1, 2], "add up to 5, for 6"),
            (&[i64::MAX, i64::MAX, i64::MAX], "for 6 token embeddings"),
            (&[], "add up to 0, for 6"),
        ] {
            std::fs::write(
                at("items.lengths.npy"),
                npy(1, "<i8", &format!("({},)", lengths.len()), &integers(lengths)),
            )
            .unwrap();
            refused(&[words]);
        }
        std::fs::write(at("items.lengths.npy"), npy(1, "<f4", "(3,)", &floats(&[2.0, 1.0, 3.0]))).unwrap();
        refused(&["lengths of type `<f4`"]);
        std::fs::write(at("items.lengths.npy"), npy(1, "<i8", "(3,)", &integers(&[2, 1, 3]))).unwrap();
        std::fs::write(at("items.ids.npy"), npy(1, "<i8", "(2,)", &integers(&[5, 6]))).unwrap();
        refused(&["2 ids, but token embeddings of 3 items"]);
        std::fs::write(at("items.npy"), npy(1, "<f4", "(3, 2, 2)", &floats(&VECTORS))).unwrap();
        refused(&["shape [3, 2, 2] with lengths"]);
        std::fs::remove_file(at("items.lengths.npy")).unwrap();
        for (shape, words) in [
            ("(0, 2, 0)", "without lengths"),
            ("(3, 0, 2)", "without lengths"),
            ("(9223372036854775807, 9223372036854775807, 0)", "0 bytes of data for the shape"),
        ] {
            std::fs::write(at("items.npy"), npy(1, "<f4", shape, &[])).unwrap();
            refused(&[words]);
        }
        save(
            &at("items.npy"),
            &[("ids", Dtype::I64, &[1], integers(&[1])), ("lengths", Dtype::F32, &[1], floats(&[1.0]))],
        );
        refused(&["`lengths` of type F32"]);
    }
}
