//! The class behind `rails_wgpu.Searcher`.

use std::path::PathBuf;

use numpy::{PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rails_wgpu::index::{Filter, IndexOptions, OpenOptions};
use rails_wgpu::retriever::{self, ModelFile, Retriever};
use rails_wgpu::search::{Algorithm, Hit, KernelTime, Request, Stage, Stats};
use rails_wgpu::sequence::History;
use roaring::RoaringTreemap;

use crate::arrays::{matrix, numbers, tensor};
use crate::errors::exception;

/// dtype, form, number of inverted lists, bytes on the device.
type Options = (String, String, Option<usize>, Option<u64>);

/// pairs, pruned, candidates, bytes_read.
type Counts = (u64, u64, u64, u64);

/// Counts; stages with their seconds; kernels: stage, name, dispatches, seconds.
type Took = (Counts, Vec<(String, f64)>, Vec<(String, &'static str, u32, f64)>);

/// Ids (B, k), scores (B, k), and what it took.
type Found<'py> = (Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<f32>>, Took);

/// Fills a row of ids that has fewer than k items.
const NO_ITEM: i64 = -1;

/// Lists of numbers, one after the other, and where each begins.
struct Lists<T> {
    values: Vec<T>,
    offsets: Vec<usize>,
}

impl<T> Lists<T> {
    fn new(values: Vec<T>, offsets: Vec<u64>) -> PyResult<Lists<T>> {
        let offsets: Vec<usize> = offsets.into_iter().map(|offset| offset as usize).collect();
        if !offsets.is_sorted() || offsets.last() != Some(&values.len()) {
            return Err(PyValueError::new_err("lists: expected offsets that ascend to the number of values"));
        }
        Ok(Lists { values, offsets })
    }

    fn iter(&self) -> impl Iterator<Item = &[T]> {
        self.offsets.windows(2).map(|pair| &self.values[pair[0]..pair[1]])
    }
}

/// A [`Retriever`]. Every method releases the interpreter while it works.
#[pyclass(frozen, module = "rails_wgpu._native")]
pub struct Searcher(Retriever);

#[pymethods]
impl Searcher {
    #[staticmethod]
    fn from_checkpoint(
        py: Python,
        checkpoint: PathBuf,
        config: Option<PathBuf>,
        item_ids: Option<PyReadonlyArray1<u64>>,
        device: &str,
        options: Options,
        folder: Option<PathBuf>,
    ) -> PyResult<Searcher> {
        let item_ids = item_ids.map(|ids| numbers("item_ids", &ids)).transpose()?;
        let options = index_options(&options)?;
        let open = || match folder {
            Some(folder) => {
                let (config, ids) = (config.as_deref(), item_ids.as_deref());
                Retriever::create_index(folder, &checkpoint, config, ids, device, options)
            }
            None => {
                let file = ModelFile::open(&checkpoint, config.as_deref())?;
                Retriever::from_model(&file, item_ids.as_deref(), device, options)
            }
        };
        py.detach(open).map(Searcher).map_err(exception)
    }

    #[staticmethod]
    fn from_index(
        py: Python,
        folder: PathBuf,
        device: &str,
        check: bool,
        device_memory: Option<u64>,
    ) -> PyResult<Searcher> {
        let open = || {
            Retriever::from_index(
                folder,
                device,
                OpenOptions::default().with_check(check).with_device_memory(device_memory),
            )
        };
        py.detach(open).map(Searcher).map_err(exception)
    }

    #[staticmethod]
    fn from_embeddings(
        py: Python,
        ids: PyReadonlyArray1<u64>,
        embeddings: PyReadonlyArray2<f32>,
        mol: Option<PathBuf>,
        device: &str,
        options: Options,
    ) -> PyResult<Searcher> {
        let (ids, embeddings) = (numbers("ids", &ids)?, tensor("embeddings", &embeddings)?);
        let options = index_options(&options)?;
        let build = || {
            let file = mol.map(|path| ModelFile::open(path, None)).transpose()?;
            Retriever::from_embeddings(&ids, &embeddings, file.as_ref(), device, options)
        };
        py.detach(build).map(Searcher).map_err(exception)
    }

    /// Histories are the lists between neighbouring `offsets` (B + 1).
    fn encode<'py>(
        &self,
        py: Python<'py>,
        item_ids: PyReadonlyArray1<u32>,
        timestamps: PyReadonlyArray1<i64>,
        offsets: PyReadonlyArray1<u64>,
        user_ids: PyReadonlyArray1<i64>,
        nows: PyReadonlyArray1<i64>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let offsets = numbers("offsets", &offsets)?;
        let item_ids = Lists::new(numbers("item_ids", &item_ids)?, offsets.clone())?;
        let timestamps = Lists::new(numbers("timestamps", &timestamps)?, offsets)?;
        let users = numbers("user_ids", &user_ids)?.into_iter().zip(numbers("nows", &nows)?);
        let lists = item_ids.iter().zip(timestamps.iter());
        let history = |((user_id, now), (item_ids, timestamps))| History { user_id, item_ids, timestamps, now };
        let histories: Vec<History> = users.zip(lists).map(history).collect();
        let queries = py.detach(|| self.0.encode(&histories)).map_err(exception)?;
        matrix(py, queries.data().to_vec(), queries.rows(), self.0.dim())
    }

    /// Excluded ids are the lists between neighbouring `offsets` (B + 1).
    #[allow(clippy::too_many_arguments, reason = "they are the options of a search, as Python names them")]
    fn search<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<f32>,
        k: usize,
        user_ids: Option<PyReadonlyArray1<i64>>,
        algorithm: &str,
        excluded: Option<(PyReadonlyArray1<u64>, PyReadonlyArray1<u64>)>,
        allowed: Option<PyReadonlyArray1<u64>>,
        profile: bool,
    ) -> PyResult<Found<'py>> {
        let algorithm: Algorithm = algorithm.parse().map_err(exception)?;
        let queries = tensor("queries", &queries)?;
        let n_queries = queries.rows();
        let user_ids = user_ids.map(|ids| numbers("user_ids", &ids)).transpose()?;
        let lists = |(ids, offsets): (PyReadonlyArray1<u64>, PyReadonlyArray1<u64>)| {
            Lists::new(numbers("exclude", &ids)?, numbers("exclude", &offsets)?)
        };
        let excluded = excluded.map(lists).transpose()?;
        let allowed = allowed.map(|ids| numbers("allow", &ids)).transpose()?;
        let search = || {
            let excluded: Vec<&[u64]> = excluded.as_ref().map(|lists| lists.iter().collect()).unwrap_or_default();
            let filter = allowed.map(|ids| Filter::allow(ids.into_iter().collect::<RoaringTreemap>()));
            let request =
                Request::new(algorithm, k).with_excluded(&excluded).with_filter(filter.as_ref()).with_profile(profile);
            let answer = self.0.search(queries, user_ids, &request)?;
            Ok((padded(&answer.hits, k), answer.stats, answer.kernels))
        };
        let ((ids, scores), stats, kernels) = py.detach(search).map_err(exception)?;
        let (ids, scores) = (matrix(py, ids, n_queries, k)?, matrix(py, scores, n_queries, k)?);
        Ok((ids, scores, (counts(&stats), times(&stats), kernels.iter().map(kernel).collect())))
    }

    fn distill(
        &self,
        py: Python,
        queries: PyReadonlyArray2<f32>,
        user_ids: Option<PyReadonlyArray1<i64>>,
    ) -> PyResult<()> {
        let queries = tensor("queries", &queries)?;
        let user_ids = user_ids.map(|ids| numbers("user_ids", &ids)).transpose()?;
        py.detach(|| self.0.distill(queries, user_ids)).map_err(exception)
    }

    fn compact(&self, py: Python) -> PyResult<()> {
        py.detach(|| self.0.index().compact()).map_err(exception)
    }

    fn add(&self, py: Python, ids: PyReadonlyArray1<u64>, embeddings: PyReadonlyArray2<f32>) -> PyResult<()> {
        let (ids, embeddings) = (numbers("ids", &ids)?, tensor("embeddings", &embeddings)?);
        py.detach(|| self.0.index().add(&ids, &embeddings)).map_err(exception)
    }

    fn remove(&self, py: Python, ids: PyReadonlyArray1<u64>) -> PyResult<usize> {
        let ids = numbers("ids", &ids)?;
        py.detach(|| self.0.index().remove(&ids)).map_err(exception)
    }

    fn __len__(&self) -> usize {
        self.0.index().len()
    }

    fn __contains__(&self, id: u64) -> bool {
        self.0.index().contains(id)
    }

    /// Ids that can be found, ascending.
    fn ids(&self) -> Vec<u64> {
        self.0.index().ids()
    }

    #[getter]
    fn dim(&self) -> usize {
        self.0.dim()
    }

    #[getter]
    fn device(&self) -> String {
        self.0.backend().info().name.clone()
    }
}

fn index_options((dtype, form, n_lists, device_memory): &Options) -> PyResult<IndexOptions> {
    retriever::index_options(dtype, form, *n_lists, *device_memory).map_err(exception)
}

fn counts(stats: &Stats) -> Counts {
    (stats.pairs, stats.pruned, stats.candidates, stats.bytes_read)
}

/// Seconds by stage, and of all together.
fn times(stats: &Stats) -> Vec<(String, f64)> {
    let stages = Stage::ALL.map(|stage| (stage.to_string(), stats.time(stage).as_secs_f64()));
    stages.into_iter().chain([("total".to_string(), stats.total.as_secs_f64())]).collect()
}

fn kernel(time: &KernelTime) -> (String, &'static str, u32, f64) {
    (time.stage.to_string(), time.kernel, time.dispatches, time.time.as_secs_f64())
}

/// Rows of `k` ids and scores. The Python half lets no id in that does not fit an i64.
fn padded(hits: &[Vec<Hit>], k: usize) -> (Vec<i64>, Vec<f32>) {
    let (mut ids, mut scores) = (vec![NO_ITEM; hits.len() * k], vec![f32::NEG_INFINITY; hits.len() * k]);
    for (row, hits) in hits.iter().enumerate() {
        for (column, hit) in hits.iter().enumerate() {
            ids[row * k + column] = hit.id as i64;
            scores[row * k + column] = hit.score;
        }
    }
    (ids, scores)
}
