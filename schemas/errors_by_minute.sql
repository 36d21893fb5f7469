-- How healthy the site was in each minute: one row a minute, over all pages.
CREATE MATERIALIZED VIEW errors_by_minute AS
SELECT window_start,
       count(*) AS requests,
       count(*) FILTER (WHERE status >= 500) AS server_errors,
       count(*) FILTER (WHERE status >= 400 AND status < 500) AS client_errors,
       bool_or(status >= 500) AS failed,
       min(bytes) AS bytes_min,
       max(bytes) AS bytes_max,
       avg(bytes) AS bytes_avg
FROM TUMBLE(page_views, ts, INTERVAL '1 minute')
GROUP BY window_start;
