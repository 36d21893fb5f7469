-- Who came in each hour, by the status they were answered with.
CREATE MATERIALIZED VIEW visitors_by_hour AS
SELECT window_start,
       status,
       count(*) AS requests,
       approx_distinct(visitor) AS visitors,
       approx_distinct(path) AS pages,
       stddev(bytes) AS bytes_stddev,
       first_value(path ORDER BY ts) AS first_page,
       last_value(path ORDER BY ts) AS last_page
FROM TUMBLE(page_views, ts, INTERVAL '1 hour')
GROUP BY window_start, status;
