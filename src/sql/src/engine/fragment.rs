//! A fragment at its storage: from the request's bytes to a stream of frames.

use super::bounds::rows_to_copy;
use super::codec::Codec;
use super::counted;
use super::errors::{translate, wrap};
use super::frames::{Encoder, Request, error_frame, unship};
use super::lookups;
use super::moments::SharedMoments;
use super::portions;
use super::site::{Site, at_site};
use super::watch;
use crate::cluster::{Cluster, Frames};
use crate::stop::Stop;
use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
};
use futures::StreamExt;
use model::{Code, Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A fragment's plan as it travels.
pub fn plan_bytes(plan: Arc<dyn ExecutionPlan>) -> DfResult<Vec<u8>> {
    Ok(physical_plan_to_bytes_with_extension_codec(plan, &Codec)?.to_vec())
}

/// Where a fragment runs, from its request. Waits for the catalog version that it was planned on.
pub async fn site_of(cluster: Arc<dyn Cluster>, request: &Request, stop: Stop) -> Result<Site> {
    let deadline = Instant::now() + Duration::from_millis(request.time_left_ms);
    let mut schema = cluster.schema();
    if schema.version() < request.catalog_version {
        cluster.catch_up(deadline).await?;
        schema = cluster.schema();
    }
    let mut shipped = BTreeMap::new();
    for (leaf, stream) in &request.shipped {
        shipped.insert(*leaf, Arc::new(unship(stream)?.1));
    }
    Ok(Site {
        cluster,
        schema,
        deadline,
        memory_bytes_max: usize::try_from(request.memory_bytes_max).unwrap_or(usize::MAX),
        buckets: request.buckets.clone(),
        shipped,
        analyze: request.analyze,
        moment: None,
        shared: request.query.clone().map(|(key, tables)| Arc::new(SharedMoments::received(key, tables))),
        shipping_failed: Arc::default(),
        stop,
    })
}

/// A fragment's plan as it runs at a site.
pub fn fragment_here(plan: Arc<dyn ExecutionPlan>, site: &Site) -> DfResult<Arc<dyn ExecutionPlan>> {
    watch::joins(portions::fed(lookups::prepare(plan, site)?)?, site)
}

/// The rows of a fragment as frames. Dropping it closes its scans. Ends with an end frame or an error frame.
pub struct FrameStream {
    /// None once the last frame is out.
    running: Option<Box<Running>>,
    began: Instant,
    deadline: Instant,
    analyze: bool,
}

struct Running {
    plan: Arc<dyn ExecutionPlan>,
    rows: SendableRecordBatchStream,
    /// Rows that did not fit the last frame.
    rest: Option<RecordBatch>,
    encoder: Encoder,
}

impl FrameStream {
    /// Errors: `Argument` or `SchemaChanged` when the plan can not be read here.
    pub fn start(plan: &[u8], context: Arc<TaskContext>, site: &Site) -> Result<Self> {
        let start = || -> DfResult<Running> {
            let plan = physical_plan_from_bytes_with_extension_codec(plan, &context, &Codec)?;
            let plan = fragment_here(plan, site)?;
            let context = at_site(&context, site.at_moment(&plan));
            let rows = counted::rows_of(plan.clone(), context)?;
            let encoder = Encoder::new(&plan.schema()).map_err(wrap)?;
            Ok(Running { plan, rows, rest: None, encoder })
        };
        let running = Some(Box::new(start().map_err(translate)?));
        Ok(Self { running, began: Instant::now(), deadline: site.deadline, analyze: site.analyze })
    }

    /// The next frame but for errors, which `next` makes frames of.
    async fn advance(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(running) = &mut self.running else { return Ok(None) };
        let Running { plan, rows, rest, encoder } = &mut **running;
        let batch = match rest.take() {
            Some(batch) => Some(Ok(batch)),
            None => tokio::time::timeout_at(self.deadline.into(), rows.next())
                .await
                .map_err(|_| Error::new(Code::Timeout, "time ran out at a storage"))?,
        };
        match batch {
            Some(batch) => {
                let batch = batch.map_err(translate)?;
                let fit = rows_to_copy(&batch).map_err(translate)?;
                *rest = (fit < batch.num_rows()).then(|| batch.slice(fit, batch.num_rows() - fit));
                encoder.batch(&batch.slice(0, fit)).map(Some)
            }
            None => {
                let elapsed_us = self.began.elapsed().as_micros() as u64;
                let shown = DisplayableExecutionPlan::with_metrics(&**plan);
                let plan = self.analyze.then(|| shown.indent(false).to_string());
                let end = encoder.end(elapsed_us, plan);
                self.running = None;
                Ok(Some(end))
            }
        }
    }
}

#[async_trait]
impl Frames for FrameStream {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.advance().await.unwrap_or_else(|error| {
            self.running = None;
            Some(error_frame(&error))
        }))
    }
}
