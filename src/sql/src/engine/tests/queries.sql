SELECT * FROM item
SELECT id, price FROM item WHERE id = 17
SELECT id FROM item WHERE id IN (3, 5, 999, 7)
SELECT id FROM item WHERE id = 3 OR id = 4 OR id = 200
SELECT id FROM item WHERE id BETWEEN 10 AND 20
SELECT id FROM item WHERE id > 230
SELECT id FROM item WHERE id > 230 AND id < 100
SELECT id FROM item WHERE kind = 3
SELECT id FROM item WHERE kind IN (1, 2) AND price > 100.5
SELECT id FROM item WHERE kind IS NULL
SELECT id FROM item WHERE kind < 2
SELECT id FROM item WHERE price = 12.50 OR name LIKE 'item 1%'
SELECT id FROM item WHERE id = 5.0
SELECT id FROM item WHERE id = 5.5
SELECT count(*) FROM item
SELECT count(*) FROM nothing
SELECT count(*), count(kind), sum(price), avg(price), min(name), max(weight) FROM item
SELECT sum(x), count(x), max(x) FROM nothing
SELECT kind, count(*) FROM item GROUP BY kind
SELECT kind, count(*), sum(price), avg(price), min(weight), max(name) FROM item GROUP BY kind
SELECT kind, count(*) FROM item GROUP BY kind HAVING count(*) > 30
SELECT id % 10, count(*), sum(price), avg(price) FROM item GROUP BY id % 10
SELECT id, count(*) FROM item GROUP BY id
SELECT order_id, sum(quantity), count(*) FROM line GROUP BY order_id
SELECT order_id, no, sum(quantity) FROM line GROUP BY order_id, no
SELECT item_id, sum(quantity) FROM line GROUP BY item_id
SELECT count(DISTINCT kind) FROM item
SELECT count(DISTINCT kind), count(DISTINCT name), count(*) FROM item
SELECT kind, count(DISTINCT name) FROM item GROUP BY kind
SELECT kind, count(DISTINCT name), sum(DISTINCT price) FROM item GROUP BY kind
SELECT DISTINCT kind FROM item
SELECT DISTINCT kind, name FROM item
SELECT count(*) FILTER (WHERE price > 100), count(*) FROM item
SELECT kind, sum(price) FILTER (WHERE weight > 50) FROM item GROUP BY kind
SELECT kind, good, count(*) FROM tag GROUP BY ROLLUP (kind, good)
SELECT kind, good, count(*) FROM tag GROUP BY GROUPING SETS ((kind), (good), ())
SELECT kind, good, count(*) FROM tag GROUP BY CUBE (kind, good)
SELECT id FROM item ORDER BY id -- ordered
SELECT id FROM item ORDER BY id DESC LIMIT 7 -- ordered
SELECT id, price FROM item ORDER BY price DESC NULLS LAST, id LIMIT 10 -- ordered
SELECT id, price FROM item ORDER BY price, id -- ordered
SELECT id, price FROM item ORDER BY price NULLS FIRST, id DESC LIMIT 25 OFFSET 5 -- ordered
SELECT id FROM item ORDER BY id LIMIT 5 OFFSET 238 -- ordered
SELECT id FROM item ORDER BY price DESC NULLS LAST, id -- ordered
SELECT name FROM item ORDER BY price NULLS FIRST, id LIMIT 20 -- ordered
SELECT id + 1 FROM item ORDER BY weight, id LIMIT 20 OFFSET 3 -- ordered
SELECT id AS x, kind AS y FROM item ORDER BY kind, id -- ordered
SELECT id FROM (SELECT id, kind FROM item ORDER BY kind, id LIMIT 30) s ORDER BY id DESC LIMIT 4 -- ordered
SELECT i.id FROM item i JOIN kind k ON i.kind = k.id ORDER BY k.label, i.id LIMIT 15 -- ordered
SELECT l.no FROM line l JOIN shipment s ON l.order_id = s.order_id ORDER BY s.sent_at DESC, l.no LIMIT 9 -- ordered
SELECT kind FROM item GROUP BY kind ORDER BY count(*), kind -- ordered
SELECT NULL AS n FROM item WHERE id < 30
SELECT NULL AS n, id FROM item WHERE id < 0
SELECT order_id FROM line GROUP BY order_id ORDER BY sum(quantity) DESC, order_id LIMIT 6 -- ordered
SELECT id FROM item ORDER BY id OFFSET 235 -- ordered
SELECT kind, count(*) AS c FROM item GROUP BY kind ORDER BY c DESC, kind LIMIT 3 -- ordered
SELECT count(*) FROM (SELECT id FROM item LIMIT 13) s
SELECT count(*) FROM (SELECT id FROM item WHERE kind = 2 LIMIT 3) s
SELECT count(*) FROM (SELECT id FROM item LIMIT 10 OFFSET 236) s
SELECT count(*) FROM (SELECT id FROM item ORDER BY id LIMIT 9) s WHERE s.id % 2 = 0
SELECT sum(id) FROM (SELECT id FROM item ORDER BY id DESC LIMIT 9) s
SELECT max(c) FROM (SELECT kind, count(*) AS c FROM item GROUP BY kind) s
SELECT c, count(*) FROM (SELECT order_id, count(*) AS c FROM line GROUP BY order_id) s GROUP BY c
SELECT i.id, k.label FROM item i JOIN kind k ON i.kind = k.id
SELECT i.id, k.label FROM item i LEFT JOIN kind k ON i.kind = k.id
SELECT i.id, k.label FROM item i RIGHT JOIN kind k ON i.kind = k.id
SELECT i.id, k.label FROM item i FULL JOIN kind k ON i.kind = k.id
SELECT k.id, k.label, i.id FROM kind k LEFT JOIN item i ON i.kind = k.id AND i.price > 200
SELECT k.label, count(*), sum(i.price) FROM item i JOIN kind k ON i.kind = k.id GROUP BY k.label
SELECT k.label, count(i.id) FROM kind k LEFT JOIN item i ON i.kind = k.id GROUP BY k.label
SELECT l.order_id, s.day, l.quantity FROM line l JOIN shipment s ON l.order_id = s.order_id
SELECT l.order_id, s.day FROM line l LEFT JOIN shipment s ON l.order_id = s.order_id
SELECT l.order_id, s.order_id FROM line l RIGHT JOIN shipment s ON l.order_id = s.order_id
SELECT l.order_id, s.order_id, s.day FROM line l FULL JOIN shipment s ON l.order_id = s.order_id
SELECT s.day, sum(l.quantity) FROM line l JOIN shipment s ON l.order_id = s.order_id GROUP BY s.day
SELECT l.order_id, count(*) FROM line l JOIN shipment s ON l.order_id = s.order_id GROUP BY l.order_id
SELECT s.order_id, count(*) FROM line l LEFT JOIN shipment s ON l.order_id = s.order_id GROUP BY s.order_id
SELECT a.id, b.id FROM item a JOIN item b ON a.id = b.id WHERE b.price > 100
SELECT a.id, b.price FROM item a JOIN item b ON a.id = b.id + 1 WHERE a.id < 50
SELECT l.order_id, i.name FROM line l JOIN item i ON l.item_id = i.id
SELECT l.order_id, i.name FROM line l LEFT JOIN item i ON l.item_id = i.id
SELECT l.order_id, i.id FROM line l RIGHT JOIN item i ON l.item_id = i.id
SELECT l.order_id, i.id FROM line l FULL JOIN item i ON l.item_id = i.id
SELECT i.kind, sum(l.quantity * i.price) FROM line l JOIN item i ON l.item_id = i.id GROUP BY i.kind
SELECT k.label, sum(l.quantity) FROM line l JOIN item i ON l.item_id = i.id JOIN kind k ON k.id = i.kind GROUP BY k.label
SELECT l.order_id, s.day, i.name, k.label FROM line l JOIN shipment s ON s.order_id = l.order_id JOIN item i ON i.id = l.item_id LEFT JOIN kind k ON k.id = i.kind WHERE l.quantity > 3
SELECT i.id, t.word FROM item i JOIN tag t ON i.kind = t.kind WHERE i.id < 40
SELECT t.word, count(i.id) FROM tag t LEFT JOIN item i ON i.kind = t.kind GROUP BY t.word
SELECT t.word, k.label FROM tag t, kind k WHERE t.good AND k.id > 2
SELECT count(*) FROM item a CROSS JOIN kind b
SELECT count(*) FROM kind a CROSS JOIN tag b
SELECT count(*) FROM tag a CROSS JOIN tag b
SELECT a.word, b.word FROM tag a JOIN tag b ON a.word < b.word WHERE a.kind = 1
SELECT a.id, k.id FROM item a LEFT JOIN kind k ON a.kind > k.id AND a.id < 20 WHERE a.id < 40
SELECT a.id, k.id FROM kind k LEFT JOIN item a ON a.kind > k.id AND a.id < 20
SELECT a.id, k.id FROM kind k FULL JOIN item a ON a.kind > k.id AND a.id < 20
SELECT id FROM item WHERE kind IN (SELECT id FROM kind WHERE label IS NOT NULL)
SELECT id FROM item WHERE kind NOT IN (SELECT id FROM kind WHERE id < 4)
SELECT id FROM item WHERE kind NOT IN (SELECT kind FROM tag WHERE kind IS NOT NULL)
SELECT id FROM item WHERE kind NOT IN (SELECT kind FROM tag)
SELECT id FROM item WHERE kind NOT IN (SELECT x FROM nothing)
SELECT id FROM kind WHERE id IN (SELECT kind FROM item)
SELECT id FROM kind WHERE id NOT IN (SELECT kind FROM item WHERE kind IS NOT NULL AND kind < 3)
SELECT id FROM kind WHERE id NOT IN (SELECT kind FROM item)
SELECT id FROM item WHERE id IN (SELECT order_id FROM line)
SELECT id FROM item WHERE id NOT IN (SELECT order_id FROM line)
SELECT id FROM item WHERE id IN (SELECT item_id FROM line WHERE quantity > 10)
SELECT id FROM item WHERE id NOT IN (SELECT item_id FROM line WHERE item_id IS NOT NULL)
SELECT id FROM item i WHERE EXISTS (SELECT 1 FROM line l WHERE l.item_id = i.id)
SELECT id FROM item i WHERE NOT EXISTS (SELECT 1 FROM line l WHERE l.item_id = i.id AND l.quantity > 5)
SELECT order_id FROM shipment s WHERE EXISTS (SELECT 1 FROM line l WHERE l.order_id = s.order_id AND l.no = 3)
SELECT order_id FROM shipment s WHERE NOT EXISTS (SELECT 1 FROM line l WHERE l.order_id = s.order_id)
SELECT id FROM kind k WHERE EXISTS (SELECT 1 FROM item i WHERE i.kind = k.id AND i.price > 240)
SELECT id FROM kind k WHERE NOT EXISTS (SELECT 1 FROM item i WHERE i.kind = k.id AND i.price > 240)
SELECT id FROM item WHERE kind = 1 OR id IN (SELECT order_id FROM line WHERE no = 4)
SELECT id FROM item WHERE price > (SELECT avg(price) FROM item)
SELECT id FROM item WHERE id = (SELECT max(order_id) FROM line)
SELECT id, (SELECT count(*) FROM kind) AS c FROM item WHERE id < 5
SELECT id, (SELECT count(*) FROM line l WHERE l.item_id = i.id) AS c FROM item i
SELECT id, (SELECT max(label) FROM kind k WHERE k.id = i.kind) AS c FROM item i
SELECT order_id FROM line l WHERE quantity = (SELECT max(quantity) FROM line m WHERE m.order_id = l.order_id)
SELECT (SELECT x FROM nothing) AS n, count(*) FROM item
SELECT id FROM item UNION ALL SELECT order_id FROM line
SELECT id, 'i' AS what FROM item UNION ALL SELECT id, 'k' FROM kind
SELECT id FROM kind UNION ALL SELECT id FROM kind
SELECT id FROM kind UNION ALL SELECT kind FROM item
SELECT kind FROM item UNION SELECT id FROM kind
SELECT kind FROM item UNION SELECT kind FROM tag
SELECT kind FROM item INTERSECT SELECT id FROM kind
SELECT kind FROM item EXCEPT SELECT id FROM kind
SELECT id FROM kind EXCEPT SELECT kind FROM item
SELECT id FROM item INTERSECT SELECT order_id FROM line
SELECT id FROM item EXCEPT SELECT order_id FROM line
SELECT count(*) FROM (SELECT id FROM item UNION ALL SELECT id FROM item UNION ALL SELECT id FROM kind) u
SELECT id, count(*) FROM (SELECT id FROM item UNION ALL SELECT order_id FROM line) u GROUP BY id
SELECT id FROM (SELECT id FROM item UNION ALL SELECT order_id FROM line) u ORDER BY id LIMIT 12 -- ordered
SELECT id FROM (SELECT id FROM item UNION ALL SELECT id FROM kind) u ORDER BY id DESC LIMIT 12 -- ordered
(SELECT id FROM item ORDER BY id LIMIT 3) UNION ALL (SELECT id FROM item ORDER BY id DESC LIMIT 3)
SELECT u.id, i.price FROM (SELECT id FROM item WHERE id < 9 UNION ALL SELECT order_id FROM line WHERE no = 4) u JOIN item i ON i.id = u.id
SELECT id, row_number() OVER (ORDER BY id) FROM item
SELECT order_id, no, row_number() OVER (PARTITION BY order_id ORDER BY no DESC) FROM line
SELECT order_id, no, sum(quantity) OVER (PARTITION BY order_id) FROM line
SELECT id, kind, rank() OVER (PARTITION BY kind ORDER BY price DESC NULLS LAST, id) FROM item
SELECT id, lag(id) OVER (ORDER BY id), sum(id) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM item
SELECT * FROM (SELECT order_id, no, row_number() OVER (PARTITION BY order_id ORDER BY quantity DESC, no) AS r FROM line) w WHERE r = 1
WITH big AS (SELECT * FROM item WHERE price > 150) SELECT a.id, b.id FROM big a JOIN big b ON a.kind = b.kind AND a.id < b.id
WITH s AS (SELECT kind, sum(price) AS p FROM item GROUP BY kind) SELECT s.kind, k.label, s.p FROM s LEFT JOIN kind k ON k.id = s.kind
WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 20) SELECT i FROM n
WITH RECURSIVE up AS (SELECT id, kind FROM item WHERE id = 200 UNION ALL SELECT i.id, i.kind FROM up JOIN item i ON i.id = up.id - 40) SELECT * FROM up
VALUES (1, 'a'), (2, 'b')
SELECT v.n, i.price FROM (VALUES (1), (2), (300)) AS v(n) LEFT JOIN item i ON i.id = v.n
SELECT i.id FROM item i JOIN (VALUES (1), (2), (300)) AS v(n) ON i.id = v.n
SELECT id FROM item WHERE id IN (SELECT n FROM (VALUES (1), (5)) AS v(n))
SELECT 1 UNION ALL SELECT id FROM item
SELECT 1 WHERE false
SELECT kind, array_agg(id ORDER BY id) FROM item GROUP BY kind
SELECT kind, string_agg(name, ',' ORDER BY name, id) FROM item WHERE id < 100 GROUP BY kind
SELECT median(weight), stddev(weight) > 0, bool_and(id > 0) FROM item
SELECT CASE WHEN price > 100 THEN 'dear' WHEN price IS NULL THEN 'free' ELSE 'cheap' END AS c, count(*) FROM item GROUP BY 1
SELECT coalesce(name, 'none'), upper(name), length(name) FROM item
SELECT word, code FROM tag WHERE code = '05050505-0505-0505-0505-050505050505'
SELECT word FROM tag WHERE word = 'w05'
SELECT word FROM tag WHERE word >= 'w05' AND word < 'w08'
SELECT day, count(*) FROM shipment WHERE day >= DATE '2013-03-01' GROUP BY day
SELECT order_id FROM shipment WHERE sent_at < TIMESTAMP '2013-01-02 00:00:00'
SELECT extract(month FROM day), count(*) FROM shipment GROUP BY 1
SELECT a.id FROM (SELECT id FROM item ORDER BY price DESC NULLS LAST, id LIMIT 5) a JOIN line l ON l.item_id = a.id
SELECT DISTINCT ON (kind) kind, id FROM item ORDER BY kind, id -- ordered
SELECT kind, first_value(id ORDER BY id) FROM item GROUP BY kind
SELECT count(*) FROM item i JOIN line l ON i.id = l.order_id JOIN shipment s ON s.order_id = i.id
SELECT i.id, sum(l.quantity) FROM item i JOIN line l ON i.id = l.order_id GROUP BY i.id ORDER BY 2 DESC, 1 LIMIT 4 -- ordered
SELECT k.id, (SELECT count(*) FROM item i WHERE i.kind = k.id) FROM kind k
SELECT id FROM item WHERE id = ANY (SELECT order_id FROM line WHERE quantity > 15)
SELECT id FROM item NATURAL JOIN (SELECT id, label FROM kind) k
SELECT id, label FROM item JOIN kind USING (id)
