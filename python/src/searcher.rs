//! The class behind `rails_wgpu.Searcher`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use rails_wgpu::index::{Filter, IndexOptions, ItemSource, OpenOptions};
use rails_wgpu::search::{Algorithm, Certificate, Hit, KernelTime, Request, Stage, Stats};
use rails_wgpu::sequence::History;
use rails_wgpu::{Attributes, ModelFile, QueryBatch, ScoreFusion, SearcherBuilder, TokenEmbeddings};
use roaring::RoaringTreemap;

use crate::arrays::{Lists, Rows, matrix, numbers, tensor};
use crate::attributes::{self, GivenAttributes, GivenCondition};
use crate::cancel::Cancel;
use crate::errors::{detached, exception};

/// dtype, form, number of inverted lists, bytes on the device.
type Options = (String, String, Option<usize>, Option<u64>);

/// pairs, pruned, candidates, bytes_read.
type Counts = (u64, u64, u64, u64);

/// Counts; stages with their seconds; kernels: stage, name, dispatches, seconds.
type Took = (Counts, Vec<(String, f64)>, Vec<(String, &'static str, u32, f64)>);

/// Ids (B, k), scores (B, k), what it took, string ids, if the index has such, and, if asked for, what an item left out can
/// score at most (B).
type Found<'py> =
    (Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<f32>>, Took, Vec<Vec<String>>, Bound<'py, PyArray1<f32>>);

/// Ids one after the other, and where each list begins and the last one ends.
type IdLists<'py> = (PyReadonlyArray1<'py, u64>, PyReadonlyArray1<'py, u64>);

/// Fills a row of ids that has fewer than k items.
const NO_ITEM: i64 = -1;

/// A weight, ids one after the other, where each list begins and the last one ends, and a score for each id.
type Fusion<'py> = (f32, PyReadonlyArray1<'py, u64>, PyReadonlyArray1<'py, u64>, PyReadonlyArray1<'py, f32>);

/// Ids of items: numbers, or strings.
#[derive(FromPyObject)]
pub enum ItemIds<'py> {
    Numbers(PyReadonlyArray1<'py, u64>),
    Strings(Vec<String>),
}

/// The same, away from Python.
enum KnownIds {
    Numbers(Vec<u64>),
    Strings(Vec<String>),
}

impl ItemIds<'_> {
    fn known(self) -> PyResult<KnownIds> {
        Ok(match self {
            ItemIds::Numbers(ids) => KnownIds::Numbers(numbers("ids", &ids)?),
            ItemIds::Strings(ids) => KnownIds::Strings(ids),
        })
    }
}

fn id_lists(name: &str, (ids, offsets): IdLists) -> PyResult<Lists<u64>> {
    Lists::new(numbers(name, &ids)?, numbers(name, &offsets)?)
}

/// A [`rails_wgpu::Searcher`]. Every method releases the interpreter while it works.
#[pyclass(frozen, module = "rails_wgpu._native")]
pub struct Searcher(rails_wgpu::Searcher);

#[pymethods]
impl Searcher {
    #[staticmethod]
    #[allow(clippy::too_many_arguments, reason = "they are the options of an index, as Python names them")]
    fn from_checkpoint(
        py: Python,
        checkpoint: PathBuf,
        config: Option<PathBuf>,
        item_ids: Option<PyReadonlyArray1<u64>>,
        device: &str,
        options: Options,
        folder: Option<PathBuf>,
        attributes: Option<GivenAttributes>,
    ) -> PyResult<Searcher> {
        let attributes = attributes.map(attributes::attributes).transpose()?;
        let item_ids = item_ids.map(|ids| numbers("item_ids", &ids)).transpose()?;
        let options = index_options(&options)?;
        let open = || {
            let file = ModelFile::open(&checkpoint, config.as_deref())?;
            let builder = rails_wgpu::Searcher::builder().model_file(&file).device(device).options(options);
            let builder = item_ids.iter().fold(builder, |builder, ids| builder.item_ids(ids));
            built(builder, folder, attributes)
        };
        detached(py, open)
    }

    #[staticmethod]
    fn from_index(
        py: Python,
        folder: PathBuf,
        device: &str,
        check: bool,
        device_memory: Option<u64>,
    ) -> PyResult<Searcher> {
        let options = OpenOptions::default().with_check(check).with_device_memory(device_memory);
        let open = || {
            let builder = rails_wgpu::Searcher::builder().folder(folder).device(device).open_options(options);
            built(builder, None, None)
        };
        detached(py, open)
    }

    #[staticmethod]
    #[allow(clippy::too_many_arguments, reason = "they are the options of an index, as Python names them")]
    fn from_embeddings(
        py: Python,
        ids: ItemIds,
        embeddings: PyReadonlyArray2<f32>,
        mol: Option<PathBuf>,
        device: &str,
        options: Options,
        folder: Option<PathBuf>,
        attributes: Option<GivenAttributes>,
    ) -> PyResult<Searcher> {
        let attributes = attributes.map(attributes::attributes).transpose()?;
        let (ids, rows) = (ids.known()?, Rows::new("embeddings", embeddings)?);
        let options = index_options(&options)?;
        let build = || {
            let file = mol.map(|path| ModelFile::open(path, None)).transpose()?;
            let read = |numbers: &[usize]| rows.copy(numbers);
            let items = match &ids {
                KnownIds::Numbers(ids) => ItemSource::of_rows(ids, rows.shape(), read)?,
                KnownIds::Strings(ids) => ItemSource::of_string_rows(ids.clone(), rows.shape(), read)?,
            };
            let builder = rails_wgpu::Searcher::builder().items(items).device(device).options(options);
            let builder = file.iter().fold(builder, |builder, file| builder.model_file(file));
            built(builder, folder, attributes)
        };
        detached(py, build)
    }

    /// Item i has `lengths[i]` rows of `vectors` (T, D), one item after the other.
    #[staticmethod]
    #[allow(clippy::too_many_arguments, reason = "they are the options of an index, as Python names them")]
    fn from_token_embeddings(
        py: Python,
        ids: PyReadonlyArray1<u64>,
        vectors: PyReadonlyArray2<f32>,
        lengths: PyReadonlyArray1<u64>,
        device: &str,
        options: Options,
        folder: Option<PathBuf>,
        attributes: Option<GivenAttributes>,
    ) -> PyResult<Searcher> {
        let attributes = attributes.map(attributes::attributes).transpose()?;
        let ids = numbers("ids", &ids)?;
        let tokens = token_embeddings("token_embeddings", &vectors, &lengths)?;
        let options = index_options(&options)?;
        let build = || {
            let builder = rails_wgpu::Searcher::builder().token_embeddings(&ids, &tokens);
            built(builder.device(device).options(options), folder, attributes)
        };
        detached(py, build)
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
        let queries = detached(py, || self.0.encode(&histories))?.embeddings;
        matrix(py, queries.data().to_vec(), queries.rows(), queries.width())
    }

    /// Excluded ids are the lists between neighbouring offsets (B + 1). There are no more columns than items. Without
    /// `certify`, there are no bounds.
    #[allow(clippy::too_many_arguments, reason = "they are the options of a search, as Python names them")]
    fn search<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<f32>,
        lengths: Option<PyReadonlyArray1<u64>>,
        k: usize,
        user_ids: Option<PyReadonlyArray1<i64>>,
        algorithm: &str,
        excluded: Option<IdLists<'py>>,
        allowed: Option<PyReadonlyArray1<u64>>,
        fusion: Option<Fusion<'py>>,
        profile: bool,
        certify: bool,
        cancel: Option<&Cancel>,
        conditions: Vec<GivenCondition>,
    ) -> PyResult<Found<'py>> {
        let conditions = attributes::conditions(conditions)?;
        let algorithm: Algorithm = algorithm.parse().map_err(exception)?;
        let queries = query_batch(&queries, lengths, user_ids)?;
        let (n_queries, cancel) = (queries.len(), cancel.map(|cancel| &cancel.0));
        let excluded = excluded.map(|lists| id_lists("exclude", lists)).transpose()?;
        let allowed = allowed.map(|ids| numbers("allow", &ids)).transpose()?;
        let fused = |(weight, ids, offsets, scores): Fusion| {
            let pairs = numbers("scores", &ids)?.into_iter().zip(numbers("scores", &scores)?).collect();
            Ok::<_, PyErr>((weight, Lists::new(pairs, numbers("scores", &offsets)?)?))
        };
        let fusion = fusion.map(fused).transpose()?;
        let search = || {
            let (weight, scores): (f32, Vec<&[(u64, f32)]>) =
                fusion.as_ref().map_or((1.0, Vec::new()), |(weight, lists)| (*weight, lists.iter().collect()));
            let fusion = fusion.as_ref().map(|_| ScoreFusion::new(weight, &scores));
            let excluded: Vec<&[u64]> = excluded.as_ref().map(|lists| lists.iter().collect()).unwrap_or_default();
            let filter = allowed.map(|ids| Filter::allow(ids.into_iter().collect::<RoaringTreemap>()));
            let request = Request::new(algorithm, k).with_excluded(&excluded).with_filter(filter.as_ref());
            let request = request.with_fusion(fusion).with_profile(profile);
            let request = request.with_certify(certify).with_cancel(cancel).with_conditions(&conditions);
            let n_items = self.0.index().len();
            let answer = self.0.answer(&queries, &request)?;
            let most = answer.hits.iter().map(Vec::len).max().unwrap_or(0);
            let columns = k.min(n_items.max(most));
            Ok((columns, padded(&answer.hits, columns), answer))
        };
        let (columns, (ids, scores), answer) = detached(py, search)?;
        let (ids, scores) = (matrix(py, ids, n_queries, columns)?, matrix(py, scores, n_queries, columns)?);
        let took = (counts(&answer.stats), times(&answer.stats), answer.kernels.iter().map(kernel).collect());
        let bounds: Vec<f32> = answer.certificates.iter().map(bound).collect();
        Ok((ids, scores, took, answer.string_ids, bounds.into_pyarray(py)))
    }

    /// Candidates are the lists between neighbouring offsets (B + 1); their scores, in their order.
    fn rescore<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<f32>,
        lengths: Option<PyReadonlyArray1<u64>>,
        candidates: IdLists<'py>,
        user_ids: Option<PyReadonlyArray1<i64>>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let queries = query_batch(&queries, lengths, user_ids)?;
        let candidates = id_lists("candidates", candidates)?;
        let rescore = || {
            let lists: Vec<&[u64]> = candidates.iter().collect();
            let hits = self.0.rescore(&queries, &lists)?;
            Ok(lists.iter().zip(&hits).flat_map(|(list, hits)| scores_of(list, hits)).collect::<Vec<f32>>())
        };
        Ok(detached(py, rescore)?.into_pyarray(py))
    }

    fn distill(
        &self,
        py: Python,
        queries: PyReadonlyArray2<f32>,
        user_ids: Option<PyReadonlyArray1<i64>>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let queries = query_batch(&queries, None, user_ids)?;
        let stopped: Mutex<Option<PyErr>> = Mutex::new(None);
        let learn = || {
            let cancel = rails_wgpu::Cancel::new();
            let tell = |share: f32| {
                // Ctrl-C is seen here, and what the caller's function raises.
                let told = Python::attach(|py| {
                    py.check_signals()?;
                    progress.as_ref().map_or(Ok(()), |progress| progress.call1(py, (share,)).map(|_| ()))
                });
                if let Err(error) = told {
                    cancel.cancel();
                    stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            };
            self.0.index().distill_with(&queries, &cancel, &tell)
        };
        let learned = detached(py, learn);
        stopped.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(learned, Err)
    }

    fn compact(&self, py: Python) -> PyResult<()> {
        detached(py, || self.0.index().compact())
    }

    fn refresh(&self, py: Python) -> PyResult<bool> {
        detached(py, || self.0.index().refresh())
    }

    fn save(&self, py: Python, folder: PathBuf) -> PyResult<()> {
        detached(py, || self.0.index().save(folder))
    }

    fn add(
        &self,
        py: Python,
        ids: ItemIds,
        embeddings: PyReadonlyArray2<f32>,
        attributes: Option<GivenAttributes>,
    ) -> PyResult<()> {
        let (ids, embeddings) = (ids.known()?, tensor("embeddings", &embeddings)?);
        let Some(attributes) = attributes.map(attributes::attributes).transpose()? else {
            return detached(py, || match &ids {
                KnownIds::Numbers(ids) => self.0.index().add(ids, &embeddings),
                KnownIds::Strings(ids) => self.0.index().add_strings(ids, &embeddings),
            });
        };
        detached(py, || {
            let read = |rows: &[usize]| Ok(embeddings.select_rows(rows));
            let shape = [embeddings.rows(), embeddings.width()];
            let source = match &ids {
                KnownIds::Numbers(ids) => ItemSource::of_rows(ids, shape, read)?,
                KnownIds::Strings(ids) => ItemSource::of_string_rows(ids.clone(), shape, read)?,
            };
            self.0.index().add_all(source.with_attributes(attributes))
        })
    }

    /// Names and types of the attributes of items.
    #[getter]
    fn attributes(&self) -> Vec<(String, String)> {
        let columns = self.0.index().columns().iter();
        columns.map(|column| (column.name.clone(), column.kind.to_string())).collect()
    }

    fn add_token_embeddings(
        &self,
        py: Python,
        ids: PyReadonlyArray1<u64>,
        vectors: PyReadonlyArray2<f32>,
        lengths: PyReadonlyArray1<u64>,
    ) -> PyResult<()> {
        let ids = numbers("ids", &ids)?;
        let tokens = token_embeddings("token_embeddings", &vectors, &lengths)?;
        detached(py, || self.0.index().add_token_embeddings(&ids, &tokens))
    }

    fn remove(&self, py: Python, ids: ItemIds) -> PyResult<usize> {
        let ids = ids.known()?;
        detached(py, || match &ids {
            KnownIds::Numbers(ids) => self.0.index().remove(ids),
            KnownIds::Strings(ids) => self.0.index().remove_strings(ids),
        })
    }

    /// The numbers that stand for string ids, of those that can be found.
    fn numbers(&self, py: Python, strings: Vec<String>) -> PyResult<Vec<Option<u64>>> {
        let numbers = || {
            let snapshot = self.0.index().snapshot();
            Ok(strings.iter().map(|string| snapshot.id_of(string)).collect())
        };
        detached(py, numbers)
    }

    /// String ids that can be found; none if ids are numbers.
    fn string_ids(&self, py: Python) -> PyResult<Vec<String>> {
        detached(py, || Ok(self.0.index().string_ids()))
    }

    #[getter]
    fn has_string_ids(&self) -> bool {
        self.0.index().has_string_ids()
    }

    #[getter]
    fn has_token_embeddings(&self) -> bool {
        self.0.index().has_token_embeddings()
    }

    fn __len__(&self) -> usize {
        self.0.index().len()
    }

    fn __contains__(&self, id: u64) -> bool {
        self.0.index().contains(id)
    }

    /// Ids that can be found, ascending.
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<u64>>> {
        Ok(detached(py, || Ok(self.0.index().ids()))?.into_pyarray(py))
    }

    #[getter]
    fn encodes(&self) -> bool {
        self.0.encodes()
    }

    #[getter]
    fn dim(&self) -> usize {
        self.0.index().dim()
    }

    #[getter]
    fn device(&self) -> String {
        self.0.index().backends().first().map(|backend| backend.info().name.clone()).unwrap_or_default()
    }
}

/// A new index with `attributes`, if there are some, is stored in `folder`, if there is one.
fn built(
    builder: SearcherBuilder,
    folder: Option<PathBuf>,
    attributes: Option<Attributes>,
) -> rails_wgpu::Result<Searcher> {
    let builder = attributes.into_iter().fold(builder, SearcherBuilder::attributes);
    folder.into_iter().fold(builder, SearcherBuilder::save_to).build().map(Searcher)
}

/// With `lengths`, query i has that many rows, one query after the other.
fn query_batch(
    queries: &PyReadonlyArray2<f32>,
    lengths: Option<PyReadonlyArray1<u64>>,
    user_ids: Option<PyReadonlyArray1<i64>>,
) -> PyResult<QueryBatch> {
    let batch = match lengths {
        Some(lengths) => QueryBatch::of_tokens(token_embeddings("queries", queries, &lengths)?),
        None => QueryBatch::new(tensor("queries", queries)?),
    };
    let user_ids = user_ids.map(|ids| numbers("user_ids", &ids)).transpose()?;
    Ok(user_ids.into_iter().fold(batch, QueryBatch::with_users))
}

fn token_embeddings(
    name: &str,
    vectors: &PyReadonlyArray2<f32>,
    lengths: &PyReadonlyArray1<u64>,
) -> PyResult<TokenEmbeddings> {
    let lengths: Vec<usize> = numbers("lengths", lengths)?.into_iter().map(|length| length as usize).collect();
    TokenEmbeddings::new(tensor(name, vectors)?, &lengths).map_err(exception)
}

fn index_options((dtype, form, n_lists, device_memory): &Options) -> PyResult<IndexOptions> {
    IndexOptions::named(dtype, form, *n_lists, *device_memory).map_err(exception)
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

/// What an item that was left out can score at most, as far as is known; minus infinity if the result is exact.
fn bound(certificate: &Certificate) -> f32 {
    match certificate {
        Certificate::Exact => f32::NEG_INFINITY,
        Certificate::AtMost(score) => *score,
        _ => f32::INFINITY,
    }
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

/// The scores of `ids` among `hits`, in the order of the ids.
fn scores_of(ids: &[u64], hits: &[Hit]) -> Vec<f32> {
    let scores: HashMap<u64, f32> = hits.iter().map(|hit| (hit.id, hit.score)).collect();
    ids.iter().map(|id| scores.get(id).copied().unwrap_or(f32::NEG_INFINITY)).collect()
}
