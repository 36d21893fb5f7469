//! When everything is right again: events are acknowledged, every view is whole, the speed layer works on every partition, and
//! generations are published.

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, Instant},
};

use riomar_schemas::receipt::ViewReceipt;
use riomar_tests::{
    answer::Answer,
    catalog::{READINGS, VIEWS},
    oracle::OracleView,
};
use tokio::time::sleep;

use super::{
    PATIENCE,
    load::{ASK_AGAIN, Load},
};

/// How long it took from the end of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    /// Until events are acknowledged, and every view holds all that was in the log when the fault ended and lacks nothing.
    pub whole: Duration,
    /// Until every view holds events from behind its generation that were appended since, from every partition.
    pub realtime: Duration,
    /// Until the batch layer has published a generation that was not there before.
    pub generation: Duration,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [whole, realtime, generation] = [self.whole, self.realtime, self.generation].map(|time| time.as_secs_f64());
        write!(f, "whole again after {whole:.1} s, realtime after {realtime:.1} s, next generation after {generation:.1} s")
    }
}

/// Waits until everything is right again after a fault that ended at this moment.
///
/// # Errors
/// What is not right in time.
pub async fn recover(load: &Load, ended: Instant) -> Result<Recovery, String> {
    let acknowledged = async {
        let later = move |began: Option<Instant>| began.is_some_and(|began| began >= ended);
        load.until("an acknowledgement", move |now| later(now.acknowledged_began)).await?;
        Ok::<_, String>(ended.elapsed())
    };
    let views = async {
        let answers = whole_views(load).await?;
        Ok::<_, String>((ended.elapsed(), answers))
    };
    let generation = async {
        next_generation(load).await?;
        Ok::<_, String>(ended.elapsed())
    };
    let realtime = async {
        realtime_views(load).await?;
        Ok::<_, String>(ended.elapsed())
    };
    let (acknowledged, (whole, answers), realtime, generation) = tokio::try_join!(acknowledged, views, realtime, generation)?;
    for (view, answer) in &answers {
        load.compare(view, answer).await;
    }
    Ok(Recovery { whole: whole.max(acknowledged), realtime, generation })
}

/// Waits until every view holds all that is in the log now, and lacks nothing; gives the answers of which that is true.
///
/// # Errors
/// A view that is not whole in time.
pub async fn whole_views(load: &Load) -> Result<Vec<(&'static OracleView, Answer)>, String> {
    let ends = load.ends().await?;
    let mut answers = Vec::new();
    for view in VIEWS {
        let whole = |answer: &Answer| {
            let through = answer.through(view.name, ends.len());
            answer.receipt.degraded.is_empty() && through.iter().zip(&ends).all(|(through, end)| through >= end)
        };
        let answer = ask_until(load, view, whole).await;
        answers.push((*view, answer.map_err(|last| format!("{} is not whole, the log ends at {ends:?}: {last}", view.name))?));
    }
    Ok(answers)
}

/// Waits until every view is answered, whatever the answers lack.
///
/// # Errors
/// A view that is not answered in time.
pub async fn answered_views(load: &Load) -> Result<(), String> {
    for view in VIEWS {
        ask_until(load, view, |_| true).await.map_err(|last| format!("{} is not answered: {last}", view.name))?;
    }
    Ok(())
}

/// Waits until each view has held events of every partition that are appended from now on and that no generation had: the speed
/// layer has brought them.
///
/// # Errors
/// A view and a partition of which that is not so in time.
async fn realtime_views(load: &Load) -> Result<(), String> {
    let (began, ends) = (Instant::now(), load.ends().await?);
    for view in VIEWS {
        let mut lacking: BTreeSet<usize> = (0..ends.len()).collect();
        while !lacking.is_empty() {
            if began.elapsed() > PATIENCE {
                return Err(format!("{} has nothing in realtime of the partitions {lacking:?} behind {ends:?}", view.name));
            }
            let Ok(answer) = load.outside().ask(view.name).await else {
                sleep(ASK_AGAIN).await;
                continue;
            };
            let behind_cut = load.behind_cut(receipt(view, &answer).cut).await?;
            let through = answer.through(view.name, ends.len());
            lacking.retain(|&partition| through[partition] <= ends[partition].max(behind_cut[partition]));
            sleep(ASK_AGAIN).await;
        }
    }
    Ok(())
}

/// Waits until each view has a generation that it has not now.
///
/// # Errors
/// A view that gets none in time.
pub async fn next_generation(load: &Load) -> Result<(), String> {
    let generation = |view: &OracleView, answer: &Answer| receipt(view, answer).generation;
    let mut before = Vec::new();
    for view in VIEWS {
        before.push((view, generation(view, &ask_until(load, view, |_| true).await?)));
    }
    for (view, before) in before {
        let later = |answer: &Answer| generation(view, answer) > before;
        let answered = ask_until(load, view, later).await;
        answered.map_err(|last| format!("{} has no generation after {before}: {last}", view.name))?;
    }
    Ok(())
}

fn receipt<'a>(view: &OracleView, answer: &'a Answer) -> &'a ViewReceipt {
    let receipt = answer.receipt.views.iter().find(|(name, _)| name.as_str() == view.name);
    receipt.map(|(_, receipt)| receipt).expect("an answer has a receipt of its view")
}

/// Asks for a view until there is such an answer; the last one, or why there was none, where that takes too long.
async fn ask_until(load: &Load, view: &OracleView, is_such: impl Fn(&Answer) -> bool) -> Result<Answer, String> {
    let began = Instant::now();
    loop {
        let last = match load.outside().ask(view.name).await {
            Ok(answer) if is_such(&answer) => return Ok(answer),
            Ok(answer) => format!("{:?}", answer.receipt),
            Err(error) => error,
        };
        if began.elapsed() > PATIENCE {
            return Err(format!("in {} s, last: {last}", PATIENCE.as_secs()));
        }
        sleep(ASK_AGAIN).await;
    }
}

/// At rest: every view is whole, every answer exact, nothing acknowledged is lost, and the account adds up.
///
/// # Errors
/// What is not right in time.
pub async fn rest(load: &mut Load) -> Result<(), String> {
    load.stop().await;
    for (view, answer) in &whole_views(load).await? {
        load.compare(view, answer).await;
    }
    if let Some(wrong) = load.wrong().first() {
        return Err(wrong.clone());
    }
    if let Some(lost) = load.lost().await?.first() {
        return Err(format!("acknowledged and lost: {lost}"));
    }
    let began = Instant::now();
    loop {
        let account = load.outside().account(READINGS.name).await.unwrap_or_default();
        if account["adds_up"] == true && account["in_flight"] == 0 {
            println!("services: at rest: {account}");
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("the account does not add up: {account}"));
        }
        sleep(ASK_AGAIN).await;
    }
}
