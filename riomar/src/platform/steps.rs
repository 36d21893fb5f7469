//! The platform one step at a time, for whoever wants to say what happens when.

use std::time::Duration;

use riomar_batch_layer::{
    BatchError,
    generations::Publication,
    recompute::Progress,
    runs::{LandedCut, ViewOutcome},
};
use riomar_schemas::{Epoch, Name, View};
use riomar_speed_layer::{SpeedError, WorkerStep};

use super::Platform;

/// Steps of landing that may pass without a cut having landed, before it is given up. Each step reads thousands of records.
const LANDING_STEPS_MAX: u32 = 100_000;

impl Platform {
    /// Landing reads what is there, one step of each stream, and commits it. Gives the number of records read, cuts included.
    ///
    /// # Errors
    /// Any; the next step begins again at the stored positions.
    pub async fn land_step(&self) -> Result<u64, BatchError> {
        let mut records = 0;
        for landing in self.landings.lock().await.iter_mut() {
            records += landing.step().await?.records;
            landing.flush().await?;
        }
        Ok(records)
    }

    /// Every speed worker takes one micro-batch, if there is one.
    ///
    /// # Errors
    /// The first worker that could do nothing; the others had their turn. The next step tries again.
    pub async fn speed_step(&self) -> Result<Vec<WorkerStep>, SpeedError> {
        let mut steps = Vec::new();
        for worker in self.workers.lock().await.iter_mut() {
            steps.push(worker.step(Duration::ZERO).await);
        }
        steps.into_iter().collect()
    }

    /// Takes the number of a new cut for each stream and appends it to every partition.
    ///
    /// # Errors
    /// [`BatchError::Store`].
    pub async fn cut(&self) -> Result<Vec<(Name, Epoch)>, BatchError> {
        let mut cuts = Vec::new();
        for stream in self.catalog().streams() {
            cuts.push((stream.name.clone(), self.batch().runs().parts().cut(&stream.name).await?));
        }
        Ok(cuts)
    }

    /// Cuts, lands up to the cut, computes and publishes the views that are named, or all of them.
    ///
    /// # Errors
    /// Any; the generations before keep serving.
    pub async fn recompute(&self, views: &[&str], full: bool) -> Result<Vec<(Name, ViewOutcome)>, BatchError> {
        if let Some(unknown) = views.iter().find(|view| self.catalog().view(view).is_none()) {
            return Err(BatchError::UnknownView((*unknown).to_owned()));
        }
        let mut outcomes = Vec::new();
        for stream in self.catalog().streams() {
            let named = |view: &&std::sync::Arc<View>| views.is_empty() || views.contains(&view.name().as_str());
            let views: Vec<_> = self.catalog().views_of(&stream.name).filter(named).collect();
            if views.is_empty() {
                continue;
            }
            let cut = self.batch().runs().parts().cut(&stream.name).await?;
            let landed = self.landed_cut(&stream.name, cut).await?;
            for view in views {
                outcomes.push((view.name().clone(), self.publish(view, &landed, full).await?));
            }
        }
        Ok(outcomes)
    }

    /// Lands up to a cut that is in the log already, computes and publishes all views of the stream there.
    ///
    /// # Errors
    /// [`BatchError::CutOvertaken`] where a later cut came first; any other, and the generations before keep serving.
    pub async fn recompute_at(&self, stream: &Name, cut: Epoch) -> Result<Vec<(Name, ViewOutcome)>, BatchError> {
        let landed = self.landed_cut(stream, cut).await?;
        let mut outcomes = Vec::new();
        for view in self.catalog().views_of(stream) {
            outcomes.push((view.name().clone(), self.publish(view, &landed, false).await?));
        }
        Ok(outcomes)
    }

    /// A cut of a stream, with everything before it landed.
    async fn landed_cut(&self, stream: &Name, cut: Epoch) -> Result<LandedCut, BatchError> {
        let parts = self.batch().runs().parts();
        let mut missing = Vec::new();
        for _ in 0..LANDING_STEPS_MAX {
            match parts.landed_cut(stream, cut).await? {
                Ok(landed) => return Ok(landed),
                Err(partitions) => missing = partitions,
            }
            if self.land_step().await? == 0 {
                parts.refuse_lost(stream).await?;
            }
        }
        Err(BatchError::LandingBehind { stream: stream.clone(), cut, waited_ms: 0, missing })
    }

    async fn publish(&self, view: &View, landed: &LandedCut, full: bool) -> Result<ViewOutcome, BatchError> {
        let progress = Progress::default();
        let Some(manifest) = self.batch().runs().parts().prepare(view, landed, full, &progress).await? else {
            return Ok(ViewOutcome::UpToDate);
        };
        match self.batch().generations().publish(view, manifest).await? {
            Publication::LostRace => Ok(ViewOutcome::LostRace),
            Publication::Published(manifest) => {
                let (generation, groups, full) = (manifest.generation, manifest.groups, manifest.full);
                Ok(ViewOutcome::Published { generation, groups, full, rows: progress.rows_total() })
            }
        }
    }
}
