//! The audit finds what differs, and nothing where nothing does.

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    compute::cast,
    datatypes::{DataType, Int64Type},
    record_batch::RecordBatch,
};
use riomar_schemas::Epoch;

use super::*;
use crate::{
    recompute::Progress,
    testing::{Fixture, audit_generation, land_all, memory, values_from_rows},
};

/// The same rows with one more in a column of the first group.
fn tampered(rows: &RecordBatch, column: &str) -> RecordBatch {
    let index = rows.schema().index_of(column).expect("the column");
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    let numbers = cast(&columns[index], &DataType::Int64).expect("numbers");
    let numbers = numbers.as_primitive::<Int64Type>();
    let changed: Int64Array = numbers.values().iter().enumerate().map(|(row, number)| number + i64::from(row == 0)).collect();
    columns[index] = cast(&changed, rows.schema().field(index).data_type()).expect("the same type");
    RecordBatch::try_new(rows.schema(), columns).expect("the same schema")
}

#[tokio::test]
async fn finds_differences_and_missing_groups() {
    let fixture = Fixture::new().await;
    let layer = fixture.layer(memory());
    let view = fixture.view();
    fixture.append_events(0..50).await;
    land_all(&mut layer.landing(&fixture.stream()).expect("known")).await;
    let rows = values_from_rows(&layer, &view, Epoch(1)).await;
    let rows = arrow::compute::concat_batches(&rows[0].schema(), &rows).expect("one schema");
    let whole = [rows.clone()];
    let same = compare(&view, &whole, &[rows.slice(1, rows.num_rows() - 1), rows.slice(0, 1)]).expect("compares");
    assert!(same.is_equal(), "the order of rows is nothing: {same:?}");
    let lacking = compare(&view, &whole, &[rows.slice(1, rows.num_rows() - 1)]).expect("compares");
    assert_eq!((lacking.differing, lacking.groups), (1, rows.num_rows() as u64));
    assert_eq!(lacking.differences[0].right, None);
    // Exact are also the estimates of equal sets.
    for column in ["hits", "visitors"] {
        let changed = compare(&view, &whole, &[tampered(&rows, column)]).expect("compares");
        assert_eq!(changed.differing, 1);
        assert_eq!(changed.differences[0].column.as_deref(), Some(column));
    }
    let nothing = compare(&view, &[], &whole).expect("compares");
    assert_eq!(nothing.differing, rows.num_rows() as u64);
    assert_eq!(compare(&view, &[], &[]).expect("compares"), Comparison::default());
}

#[tokio::test]
async fn audits_a_generation_and_remembers() {
    let fixture = Fixture::new().await;
    let layer = fixture.layer(memory());
    let (view, stream) = (fixture.view(), fixture.stream());
    let before = audit_generation(&layer, &view).await;
    assert_eq!((before.generation, before.comparison.groups), (0, 0), "nothing is published");
    fixture.append_events(0..200).await;
    let parts = layer.runs().parts();
    let cut = parts.cut(&stream.name).await.expect("a cut");
    fixture.append_events(200..220).await;
    land_all(&mut layer.landing(&stream).expect("known")).await;
    let landed = parts.landed_cut(&stream.name, cut).await.expect("reads").expect("landed");
    let manifest = parts.prepare(&view, &landed, false, &Progress::default()).await.expect("computes").expect("new");
    let mut lacking = manifest.clone();
    layer.generations().publish(&view, manifest).await.expect("publishes");
    let report = audit_generation(&layer, &view).await;
    assert!(report.comparison.is_equal() && report.comparison.groups > 10, "{report:?}");
    assert_eq!(report.cut, cut);
    // A generation that lacks a file: the audit must say so.
    lacking.generation += 1;
    let lost = lacking.files.pop().expect("a file");
    layer.generations().publish(&view, lacking).await.expect("publishes");
    let report = audit_generation(&layer, &view).await;
    assert_eq!(report.comparison.differing, lost.groups);
    assert_eq!(layer.audits().last(view.name(), AuditKind::Answer).await, Some(report));
}
