//! An item index on the CPU: host tables as they are, and packed weights.

use std::sync::{Arc, OnceLock};

use crate::Result;
use crate::backend::check;
use crate::backend::cpu::dot::micro_kernel::{RowBlocks, TILE};
use crate::backend::cpu::dot::transform::Transform;
use crate::backend::cpu::mol::gradient::{GradientScratch, GradientStage, MolGradient};
use crate::backend::cpu::mol::item_side::MolTile;
use crate::backend::cpu::mol::kernel::MolKernel;
use crate::backend::cpu::mol::logits::LogitStage;
use crate::backend::cpu::mol::query::{MolQuery, transform};
use crate::backend::cpu::mol::query_side::QuerySide;
use crate::backend::cpu::mol::scratch::MolScratch;
use crate::backend::cpu::scan::centroid_scan::{self, CentroidScan, centroid_rows};
use crate::backend::cpu::scan::dot_queries::Queries;
use crate::backend::cpu::scan::dot_scan::DotScan;
use crate::backend::cpu::scan::list_scan::ListScan;
use crate::backend::cpu::scan::max_sim_scan::{self, MaxSimScan};
use crate::backend::cpu::scan::mol_scan::{MolScan, Score};
use crate::backend::cpu::scan::tile_scan;
use crate::backend::cpu::simd::run;
use crate::backend::cpu::small_batch::TileMagnitudes;
use crate::backend::{Columns, DeviceIndex, Exclusions, Hits, PreparedQueries, Scorer, SearchContext, Similarity};
use crate::config::MolConfig;
use crate::model::Mol;
use crate::tables::{MolTables, Tables, TokenTable};
use crate::tensor::Tensor;
use crate::threads;
use crate::token_embeddings::TokenEmbeddings;

/// Tables and, for Mixture-of-Logits, the weights of the query side and of the gate.
pub struct CpuIndex {
    tables: Arc<Tables>,
    mol: Option<MolWeights>,
    magnitudes: Magnitudes,
    /// Of the token embeddings; made when they are first needed.
    centroid_rows: OnceLock<RowBlocks>,
}

/// The largest magnitudes of the tables that inner products are computed with.
struct Magnitudes {
    raw: TileMagnitudes,
    components: TileMagnitudes,
    mean: TileMagnitudes,
    principal: TileMagnitudes,
}

impl Magnitudes {
    fn new(n_items: usize) -> Magnitudes {
        let unknown = || TileMagnitudes::new(n_items.div_ceil(TILE));
        Magnitudes { raw: unknown(), components: unknown(), mean: unknown(), principal: unknown() }
    }
}

struct MolWeights {
    host: Mol<Tensor>,
    kernel: MolKernel,
    distilled: Option<MolKernel>,
    gradient: MolGradient,
}

impl MolWeights {
    fn new(similarity: &Similarity) -> MolWeights {
        let mol = &similarity.mol;
        MolWeights {
            host: mol.clone(),
            kernel: MolKernel::new(&mol.config, &mol.gate_cross),
            distilled: similarity.distilled.as_ref().map(|distilled| MolKernel::new(&mol.config, &distilled.cross)),
            gradient: MolGradient::new(&mol.gate_cross),
        }
    }
}

impl CpuIndex {
    /// Serves `tables`, by `similarity` if they have been made for one.
    pub fn new(tables: Arc<Tables>, similarity: Option<&Similarity>) -> CpuIndex {
        let mol = similarity.filter(|_| tables.mol.is_some()).map(MolWeights::new);
        let magnitudes = Magnitudes::new(tables.len());
        CpuIndex { tables, mol, magnitudes, centroid_rows: OnceLock::new() }
    }

    /// (B, L): the derivative of the Mixture-of-Logits score with respect to its logits, averaged over the `candidates`
    /// of each query; zero where there are none.
    ///
    /// # Errors
    /// As [`DeviceIndex::rescore`].
    pub fn gradient(&self, queries: &PreparedQueries, candidates: &[Vec<u32>]) -> Result<Tensor> {
        let weights = self.checked(queries)?;
        check::candidates(self.tables.len(), queries.batch().len(), candidates)?;
        let n_logits = weights.host.config.n_logits();
        let side = QuerySide::of(&weights.host, queries);
        let queries = side.queries(self.tables.form());
        let mean = |scratch: &mut (MolTile, MolScratch, GradientScratch), &(query, list): &(&MolQuery, &Vec<u32>)| {
            let (items, work, out) = scratch;
            let mut mean = vec![0.0; n_logits];
            for positions in list.chunks(TILE) {
                if let Some(mol) = &self.tables.mol {
                    items.load(&self.tables.raw, mol, positions.len(), |lane| positions[lane] as usize);
                }
                work.fit(&weights.kernel);
                run(LogitStage { kernel: &weights.kernel, query, items, work });
                run(GradientStage {
                    kernel: &weights.kernel,
                    gradient: &weights.gradient,
                    query_gate: query.gate.as_deref(),
                    item_gate: items.gate(),
                    work,
                    out,
                });
                for (mean, lanes) in mean.iter_mut().zip(out.gradient().chunks_exact(TILE)) {
                    *mean += lanes[..positions.len()].iter().sum::<f32>() / list.len() as f32;
                }
            }
            mean
        };
        let pairs: Vec<(&MolQuery, &Vec<u32>)> = queries.iter().zip(candidates).collect();
        let rows = threads::map(&pairs, 1, mean);
        Ok(Tensor::trusted(vec![rows.len(), n_logits], rows.concat()))
    }

    /// The best `k` of the first `n_items` items by inner product with the mean of their components, for each of the
    /// `vectors` (V, D_P).
    ///
    /// # Errors
    /// As [`DeviceIndex::scan_components`].
    pub fn scan_first(&self, context: &SearchContext, vectors: &Tensor, n_items: usize, k: usize) -> Result<Hits> {
        let scan = self.component_scan(vectors, Columns::Mean)?;
        let n_items = n_items.min(self.tables.len());
        check::top_k(n_items, vectors.rows(), k, &Exclusions::default())?;
        let extent = (n_items.div_ceil(TILE), n_items);
        Ok(tile_scan::best(context, &scan, extent, vectors.rows(), k, &Exclusions::default()).0)
    }

    fn checked(&self, queries: &PreparedQueries) -> Result<&MolWeights> {
        check::mol_queries(self.tables.raw.width(), self.config(), queries.batch())?;
        self.mol.as_ref().ok_or_else(check::no_mol)
    }

    fn config(&self) -> Option<&MolConfig> {
        self.mol.as_ref().map(|weights| &weights.host.config)
    }

    /// A scan by one of the Mixture-of-Logits scorers.
    fn mol_scan(&self, scorer: Scorer, queries: &PreparedQueries, prune: bool) -> Result<MolScan<'_>> {
        let weights = self.checked(queries)?;
        let (kernel, score) = match scorer {
            Scorer::Bound => (&weights.kernel, Score::Bound),
            Scorer::Distilled => (weights.distilled.as_ref().ok_or_else(check::no_distilled)?, Score::Mixture),
            Scorer::Mol | Scorer::Dot | Scorer::MaxSim | Scorer::Centroids => (&weights.kernel, Score::Mixture),
        };
        Ok(MolScan { kernel, side: QuerySide::of(&weights.host, queries), tables: &self.tables, score, prune })
    }

    /// The token embeddings of items and of queries.
    fn tokens<'a>(&'a self, queries: &'a PreparedQueries) -> Result<(&'a TokenTable, &'a TokenEmbeddings)> {
        let items = self.tables.tokens.as_ref().ok_or_else(check::no_tokens)?;
        Ok((items, check::tokens(items.vectors().width(), queries.batch())?))
    }

    /// A scan of the tables that first stages use.
    fn component_scan(&self, vectors: &Tensor, columns: Columns) -> Result<DotScan<'_>> {
        check::components(&self.tables, vectors, columns)?;
        if self.tables.tokens.is_some() {
            return Ok(DotScan::new(vectors, &self.tables.raw, 0..1, &self.magnitudes.raw));
        }
        let (Some(weights), Some(tables)) = (&self.mol, &self.tables.mol) else { return Err(check::no_mol()) };
        let MolTables { components, inverse_norms, mean, principal, .. } = tables;
        let groups = match columns {
            Columns::Mean | Columns::Principal => 0..1,
            Columns::Group(group) => group..group + 1,
            Columns::All => 0..weights.host.config.item_dot_product_groups,
        };
        let plain = |items, magnitudes| DotScan::new(vectors, items, groups.clone(), magnitudes);
        Ok(match (columns, components, inverse_norms) {
            (Columns::Mean, ..) => plain(mean, &self.magnitudes.mean),
            (Columns::Principal, ..) => {
                plain(principal.as_ref().ok_or_else(check::no_mol)?, &self.magnitudes.principal)
            }
            (_, Some(components), _) => plain(components, &self.magnitudes.components),
            (_, None, None) => plain(&self.tables.raw, &self.magnitudes.raw),
            (_, None, Some(inverse_norms)) => {
                let d_p = weights.host.config.dot_product_dimension;
                let projection = &weights.host.item.as_ref().ok_or_else(check::no_mol)?.output;
                let parts = vectors.data().chunks_exact(d_p).enumerate();
                let rows = parts.map(|(i, v)| transform(projection, v, groups.start + i % groups.len()));
                let (rows, bias): (Vec<Vec<f32>>, Vec<f32>) = rows.unzip();
                let raw = &self.tables.raw;
                let queries = Queries::new(raw, &rows.concat(), rows.len(), raw.width());
                let transform = Some(Transform { bias, inverse_norms, components: groups });
                DotScan { queries, n_queries: vectors.rows(), items: raw, groups: 0..1, transform, prefilter: None }
            }
        })
    }

    fn extent(&self) -> (usize, usize) {
        (self.tables.len().div_ceil(TILE), self.tables.len())
    }
}

impl DeviceIndex for CpuIndex {
    fn scan(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits> {
        let dim = self.tables.raw.width();
        check::scan((self.tables.len(), dim, self.config()), scorer, queries.batch(), k, excluded)?;
        let n_queries = queries.batch().len();
        if scorer == Scorer::Dot {
            let scan = DotScan::new(&queries.batch().embeddings, &self.tables.raw, 0..1, &self.magnitudes.raw);
            return Ok(tile_scan::best(context, &scan, self.extent(), n_queries, k, excluded).0);
        }
        if let Scorer::MaxSim | Scorer::Centroids = scorer {
            let (items, queries) = self.tokens(queries)?;
            if let (Scorer::Centroids, Some(codes)) = (scorer, &items.codes) {
                let rows = self.centroid_rows.get_or_init(|| centroid_rows(codes));
                let mut hits = Vec::with_capacity(n_queries);
                for slice in centroid_scan::slices(codes, queries) {
                    context.check()?;
                    let scan = CentroidScan::new(codes, rows, queries, slice.clone());
                    let excluded = excluded.selected(slice.clone());
                    hits.extend(tile_scan::best(context, &scan, self.extent(), slice.len(), k, &excluded).0);
                }
                return Ok(hits);
            }
            let scan = MaxSimScan::new(items, queries);
            return Ok(tile_scan::best(context, &scan, self.extent(), n_queries, k, excluded).0);
        }
        let scan = self.mol_scan(scorer, queries, false)?;
        Ok(tile_scan::best(context, &scan, self.extent(), n_queries, k, excluded).0)
    }

    fn scan_pruned(
        &self,
        context: &SearchContext,
        queries: &PreparedQueries,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<(Hits, u64)> {
        let dim = self.tables.raw.width();
        check::scan((self.tables.len(), dim, self.config()), Scorer::Mol, queries.batch(), k, excluded)?;
        let scan = self.mol_scan(Scorer::Mol, queries, true)?;
        Ok(tile_scan::best(context, &scan, self.extent(), queries.batch().len(), k, excluded))
    }

    fn scan_components(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits> {
        let scan = self.component_scan(vectors, columns)?;
        check::top_k(self.tables.len(), vectors.rows(), k, excluded)?;
        Ok(tile_scan::best(context, &scan, self.extent(), vectors.rows(), k, excluded).0)
    }

    fn scan_lists(
        &self,
        context: &SearchContext,
        lists: usize,
        vectors: &Tensor,
        probes: &[Vec<u32>],
        k: usize,
        excluded: &Exclusions,
    ) -> Result<Hits> {
        let lists = check::lists(&self.tables, lists, vectors, probes)?;
        check::top_k(self.tables.len(), vectors.rows(), k, excluded)?;
        let scan = ListScan::new(lists, vectors, probes);
        Ok(tile_scan::best(context, &scan, (lists.centroids.rows(), self.tables.len()), vectors.rows(), k, excluded).0)
    }

    fn above(
        &self,
        context: &SearchContext,
        vectors: &Tensor,
        columns: Columns,
        thresholds: &[f32],
        excluded: &Exclusions,
    ) -> Result<Vec<Vec<u32>>> {
        let scan = self.component_scan(vectors, columns)?;
        check::thresholds(vectors.rows(), thresholds)?;
        check::exclusions(self.tables.len(), vectors.rows(), excluded)?;
        Ok(tile_scan::above(context, &scan, self.tables.len(), thresholds, excluded))
    }

    fn rescore(
        &self,
        context: &SearchContext,
        scorer: Scorer,
        queries: &PreparedQueries,
        candidates: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>> {
        check::candidate_scorer(scorer)?;
        check::candidates(self.tables.len(), queries.batch().len(), candidates)?;
        if scorer == Scorer::MaxSim {
            let (items, queries) = self.tokens(queries)?;
            return Ok(max_sim_scan::rescore(context, items, queries, candidates));
        }
        let scan = self.mol_scan(scorer, queries, false)?;
        Ok(scan.rescore(context, candidates))
    }

    fn bytes(&self) -> u64 {
        self.tables.bytes()
    }
}
