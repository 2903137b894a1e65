//! Whether a list of hits is a right answer, as far as f32 can tell.

use rails_wgpu::backend::ScoredPosition;

use super::naive::Num;

/// Checks the best `k` of one query against the scores of all items.
///
/// The list must be as long as it can be, hold no excluded position, be ordered by score descending, then position
/// ascending, have every score within its error bound, and at each rank an item that no item further down, and no item
/// left out, certainly beats: where gaps exceed the bounds, ids are those of the exact order.
pub fn compare(scores: &[Num], excluded: &[u32], k: usize, hits: &[ScoredPosition]) -> Result<(), String> {
    let expected = k.min(scores.len() - excluded.len());
    if hits.len() != expected {
        return Err(format!("expected {expected} hits, found {}", hits.len()));
    }
    let mut by_certain_score: Vec<u32> = (0..scores.len() as u32).filter(|p| !excluded.contains(p)).collect();
    let certain = |p: u32| scores[p as usize].value - scores[p as usize].error;
    by_certain_score.sort_by(|&a, &b| certain(b).total_cmp(&certain(a)));
    let mut rivals = by_certain_score.into_iter().peekable();
    let mut listed = vec![false; scores.len()];
    for (rank, hit) in hits.iter().enumerate() {
        let position = hit.position as usize;
        if position >= scores.len() || excluded.contains(&hit.position) || listed[position] {
            return Err(format!("rank {rank}: {hit:?} is excluded, unknown or listed already"));
        }
        let Num { value, error } = scores[position];
        if (f64::from(hit.score) - value).abs() > error || hit.score.is_nan() {
            return Err(format!("rank {rank}: {hit:?} should have score {value} +- {error:e}"));
        }
        if let Some(next) = hits.get(rank + 1)
            && (next.score > hit.score || next.score == hit.score && next.position <= hit.position)
        {
            return Err(format!("rank {rank}: {hit:?} comes before {next:?}"));
        }
        if let Some(&rival) = rivals.peek()
            && certain(rival) > value + error
        {
            return Err(format!("rank {rank}: {hit:?} is beaten by {rival} with {:?}", scores[rival as usize]));
        }
        listed[position] = true;
        while rivals.next_if(|&rival| listed[rival as usize]).is_some() {}
    }
    Ok(())
}
