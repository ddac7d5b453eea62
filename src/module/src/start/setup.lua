-- What only Lua can do on this host: box.cfg, users and privileges, our own spaces. Called by the start room, in
-- this order: `is_open`, `configure`, then on a writable instance `create`.

local setup = {}

local SERVICE_USER, REPLICATION_USER = 'pico_service', 'pico_replication'

--- Whether the storage is open: until then the host keeps a function in the place of its options.
function setup.is_open()
    return type(box.cfg) ~= 'function'
end

--- Opens the storage. `options` are box.cfg's own names; a failure is raised as the host says it.
function setup.configure(options)
    box.cfg(options)
end

--- The services of this instance that IPROTO clients may call, as C functions of the trampolines.
local function create_function(name, user)
    if not box.schema.func.exists(name) then
        box.schema.func.create(name, {language = 'C', setuid = true})
    end
    if user then
        box.schema.user.grant(user, 'execute', 'function', name, {if_not_exists = true})
    end
end

--- Makes users, functions and our own spaces where they are missing. Runs on a writable instance; replicas receive
--- the result. `spec`: secret, admin_password or nil, functions = {{name=, peer=}, ...},
--- spaces = {{id=, name=, is_local=, format=, parts=}, ...}.
function setup.create(spec)
    box.begin()
    box.schema.user.create(SERVICE_USER, {if_not_exists = true})
    box.schema.user.passwd(SERVICE_USER, spec.secret)
    box.schema.user.create(REPLICATION_USER, {if_not_exists = true})
    box.schema.user.passwd(REPLICATION_USER, spec.secret)
    box.schema.user.grant(REPLICATION_USER, 'replication', nil, nil, {if_not_exists = true})
    if spec.admin_password then
        box.schema.user.passwd('admin', spec.admin_password)
    end
    -- A guest may connect, and nothing else.
    for _, object in ipairs({{'role', 'public'}, {'universe', nil}}) do
        local privileges = object[1] == 'role' and 'execute' or 'session,usage'
        box.schema.user.revoke('guest', privileges, object[1], object[2], {if_exists = true})
    end
    for _, func in ipairs(spec.functions) do
        create_function(func.name, func.peer and SERVICE_USER or nil)
    end
    for _, space in ipairs(spec.spaces) do
        if box.space[space.name] == nil then
            local options = {id = space.id, is_local = space.is_local, format = space.format}
            local made = box.schema.space.create(space.name, options)
            made:create_index('primary', {parts = space.parts})
        end
    end
    box.commit()
end

--- Tells the module whenever the host's schema changed, by its own hand or by replication, and when the process ends.
function setup.watch_schema()
    local core = require('picodata.core')
    for _, name in ipairs({'_space', '_index'}) do
        box.space[name]:on_replace(core.schema_changed)
    end
    box.space._truncate:on_replace(core.space_truncated)
    box.ctl.on_shutdown(core.shut_down)
    box.session.on_auth(function(user, is_known)
        if is_known and user == REPLICATION_USER then
            core.follower_connected(box.session.fd())
        end
    end)
end

--- The triggers that tell of each change of a table's rows, by the number of its space.
local row_triggers = {}

function setup.watch_rows(space_id)
    local row_changed = require('picodata.core').row_changed
    local trigger = function(old, new)
        row_changed(space_id, old, new)
    end
    box.space[space_id]:on_replace(trigger)
    row_triggers[space_id] = trigger
end

function setup.unwatch_rows(space_id)
    local trigger = row_triggers[space_id]
    row_triggers[space_id] = nil
    -- A space that was dropped has lost its triggers.
    if trigger ~= nil and box.space[space_id] ~= nil then
        pcall(box.space[space_id].on_replace, box.space[space_id], nil, trigger)
    end
end

--- Which members of the replicaset follow this instance, and which it follows: {[uuid] = {upstream=, downstream=}}.
--- What has ended following one for good is its `failure`: the host tries again by itself when a connection breaks, and
--- never when a row could not be read or applied.
function setup.links()
    local links = setmetatable({}, {__serialize = 'map'})
    for _, member in pairs(box.info.replication) do
        links[member.uuid] = {
            upstream = member.upstream ~= nil and member.upstream.status == 'follow',
            downstream = member.downstream ~= nil and member.downstream.status == 'follow',
            failure = member.upstream ~= nil and member.upstream.status == 'stopped'
                and tostring(member.upstream.message) or nil,
        }
    end
    return links
end

--- Whether a clock has rows that this instance has not, or lacks rows of others than this instance.
local function differs(clock)
    for id, lsn in pairs(clock) do
        if id ~= 0 and lsn > (box.info.vclock[id] or 0) then
            return true
        end
    end
    for id, lsn in pairs(box.info.vclock) do
        if id ~= 0 and id ~= box.info.id and lsn > (clock[id] or 0) then
            return true
        end
    end
    return false
end

--- How far the members that follow this instance have acknowledged its own rows: {[id] = lsn}, and its own lsn at [0].
--- Not those that have other rows, or lack older ones.
function setup.acknowledged()
    local positions = setmetatable({[0] = box.info.lsn}, {__serialize = 'map'})
    for id, member in pairs(box.info.replication) do
        local downstream = member.downstream
        if downstream ~= nil and downstream.status == 'follow' and not differs(downstream.vclock) then
            positions[id] = downstream.vclock[box.info.id] or 0
        end
    end
    return positions
end

--- How much of `memtx_memory` there is and is used, in bytes.
function setup.memory()
    local info = box.slab.info()
    return {quota = info.quota_size, items = info.items_size, items_used = info.items_used, used = info.arena_used}
end

--- Makes a snapshot of all that is here now, and answers the name of its file.
function setup.checkpoint()
    repeat
        local is_made, failure = pcall(box.snapshot)
        if not is_made then
            if failure.code ~= box.error.CHECKPOINT_IN_PROGRESS then
                error(failure)
            end
            -- The host tells nobody when its own has ended, and that one may lack what is here now.
            require('fiber').sleep(0.05)
        end
    until is_made
    local checkpoints = box.info.gc().checkpoints
    return ('%020d.snap'):format(tonumber(checkpoints[#checkpoints].signature))
end

--- This instance's number in its replicaset, and how many rows it has of each member: {id, {[id] = lsn}}. Local rows do
--- not count.
function setup.clock()
    local clock = setmetatable({}, {__serialize = 'map'})
    for id, lsn in pairs(box.info.vclock) do
        if id ~= 0 then
            clock[id] = lsn
        end
    end
    return {box.info.id, clock}
end

return setup
