-- Requests to a web site, and the traffic of each page by minute.
CREATE TABLE page_views (
  event_id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, path VARCHAR NOT NULL,
  visitor VARCHAR, status INT, bytes BIGINT
) WITH (event_time = 'ts', dedup_by = 'event_id', partition_by = 'visitor', partitions = 4);

CREATE MATERIALIZED VIEW traffic_by_minute AS
SELECT window_start, path, count(*) AS hits, sum(bytes) AS bytes,
       approx_distinct(visitor) AS visitors, approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY bytes) AS p95_bytes
FROM TUMBLE(page_views, ts, INTERVAL '1 minute')
GROUP BY window_start, path;
