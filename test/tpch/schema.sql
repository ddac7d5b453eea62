-- The eight tables of TPC-H. Orders lie with their lines, parts with those who supply them; the two small tables are everywhere.
CREATE TABLE region (
    r_regionkey INTEGER PRIMARY KEY, r_name CHAR(25), r_comment VARCHAR(152)
) DISTRIBUTED GLOBALLY;
CREATE TABLE nation (
    n_nationkey INTEGER PRIMARY KEY, n_name CHAR(25), n_regionkey INTEGER NOT NULL, n_comment VARCHAR(152)
) DISTRIBUTED GLOBALLY;
CREATE TABLE supplier (
    s_suppkey INTEGER PRIMARY KEY, s_name CHAR(25), s_address VARCHAR(40), s_nationkey INTEGER NOT NULL, s_phone CHAR(15),
    s_acctbal DECIMAL(15,2), s_comment VARCHAR(101)
);
CREATE TABLE part (
    p_partkey INTEGER PRIMARY KEY, p_name VARCHAR(55), p_mfgr CHAR(25), p_brand CHAR(10), p_type VARCHAR(25), p_size INTEGER,
    p_container CHAR(10), p_retailprice DECIMAL(15,2), p_comment VARCHAR(23)
);
CREATE TABLE partsupp (
    ps_partkey INTEGER, ps_suppkey INTEGER, ps_availqty INTEGER, ps_supplycost DECIMAL(15,2), ps_comment VARCHAR(199),
    PRIMARY KEY (ps_partkey, ps_suppkey)
) DISTRIBUTED BY (ps_partkey);
CREATE TABLE customer (
    c_custkey INTEGER PRIMARY KEY, c_name VARCHAR(25), c_address VARCHAR(40), c_nationkey INTEGER NOT NULL, c_phone CHAR(15),
    c_acctbal DECIMAL(15,2), c_mktsegment CHAR(10), c_comment VARCHAR(117)
);
CREATE TABLE orders (
    o_orderkey BIGINT PRIMARY KEY, o_custkey INTEGER NOT NULL, o_orderstatus CHAR(1), o_totalprice DECIMAL(15,2), o_orderdate DATE,
    o_orderpriority CHAR(15), o_clerk CHAR(15), o_shippriority INTEGER, o_comment VARCHAR(79)
);
CREATE TABLE lineitem (
    l_orderkey BIGINT, l_partkey INTEGER NOT NULL, l_suppkey INTEGER NOT NULL, l_linenumber INTEGER, l_quantity DECIMAL(15,2),
    l_extendedprice DECIMAL(15,2), l_discount DECIMAL(15,2), l_tax DECIMAL(15,2), l_returnflag CHAR(1), l_linestatus CHAR(1),
    l_shipdate DATE, l_commitdate DATE, l_receiptdate DATE, l_shipinstruct CHAR(25), l_shipmode CHAR(10), l_comment VARCHAR(44),
    PRIMARY KEY (l_orderkey, l_linenumber)
) DISTRIBUTED BY (l_orderkey);
