# Sums over samples by several threads. The samples are divided into shares, whose number depends on the net and its
# data alone; whichever thread is free claims the next share, and their sums are added in order: the same numbers to the
# last bit for every number of threads. The thread that asked waits for nobody: when all shares are claimed, it does
# again those that others have begun and not delivered, because another process has that thread's core for instance.

# To add the sums of a share costs up to 6 % of a block where they are matrices.
const BLOCKS_PER_MATRIX = 4
# The sums of a share are a matrix beside the result: 128 MB for so many parameters. Beyond there is one share.
const MOST_SHARED_PARAMS = 4096
# A solver comes back before that, and to be woken takes as long.
const PATIENCE = 50_000
const LONGEST_REST = 64

n_shares(::Pass, net) = min(length(net.blocks), MOST_SHARES)
n_shares(::MatrixPass, net) =
    net.n_params > MOST_SHARED_PARAMS ? 1 : clamp(div(length(net.blocks), BLOCKS_PER_MATRIX), 1, MOST_SHARES)

"""
    @objective net call(…, objective)

The call with the loss of `net` as `objective`, of known type where it is the mean square: an evaluation on few samples
takes less than a microsecond. Others cost one dynamic call.
"""
macro objective(net, call)
    return esc(:(let objective = $net.objective
        objective isa MeanSquared ? $call : $call
    end))
end

"""
    sum_shares!(pass, net, θ, v = θ)

Overwrite `net.crew.total`, in the arrays that are there, with the sums over all samples.
"""
function sum_shares!(pass::Pass, net, θ, v=θ)
    crew, n = net.crew, n_shares(pass, net)
    if n > 1 && help_wanted!(crew, net)
        # Other packages make code with tasks and locks invalid, and with it all that would be compiled into it.
        Base.invokelatest(sum_together!, pass, net, θ, v, n)
        return nothing
    end
    worker, total = crew.workers[1], crew.total
    own = worker.sums[1]
    sum_share!(total, pass, worker, net, θ, v, 1, n)
    for i in 2:n
        sum_share!(own, pass, worker, net, θ, v, i, n)
        add_sums!(pass, total, own)
    end
    return nothing
end

"Overwrite `sums` with those of share `i` of `n`; false if nobody wanted them before the end."
function sum_share!(sums::Sums, pass::Pass, worker::Worker, net, θ, v, i::Int, n::Int)
    make_arrays!(sums, pass, net)
    worker.blocks = div((i - 1) * length(net.blocks), n)+1:div(i * length(net.blocks), n)
    return @objective net sum_samples!(pass, sums, worker, net, θ, v, objective)::Bool
end

# Blocks with kinks are written to in an evaluation: they are for one thread.
function help_wanted!(crew::Crew, net)
    length(crew.workers) > 1 && Threads.nthreads() > 1 && isempty(net.blocks[1].kinks) || return false
    crew.rest == 0 && return true
    crew.rest -= 1
    return false
end

function sum_together!(pass::Pass, net, θ, v, n::Int)
    crew = net.crew
    me, total = crew.workers[1], crew.total
    evaluation = evaluation_of(crew.ticket[]) + 1
    added, mine, again = 1, 1, 0
    invite!(crew, net, pass, θ, v, evaluation, n)
    try
        sum_share!(total, pass, me, net, θ, v, 1, n)
        while added < n
            crew.added[] = ticket(evaluation, added)
            i = vacant(pass, me, crew.added[]) ? share_of(Threads.atomic_add!(crew.ticket, 1)) : n + 1
            if i <= n
                sums = place(pass, me, i, crew.added[])
                sum_share!(sums, pass, me, net, θ, v, i, n)
                sums.ticket[] = ticket(evaluation, i)
                mine += 1
            else
                me.ticket = ticket(evaluation, added + 1)           # ends if it is delivered meanwhile
                sums = spare(pass, me, added + 1)
                if sum_share!(sums, pass, me, net, θ, v, added + 1, n)
                    sums.ticket[] = me.ticket
                    again += 1
                end
                me.ticket = 0
            end
            while added < n
                sums = delivery(pass, crew, ticket(evaluation, added + 1))
                sums === nothing && break
                add_sums!(pass, total, sums)
                added += 1
            end
        end
    finally
        me.ticket = 0
        crew.ticket[] = crew.added[] = ticket(evaluation, CLOSED)
    end
    delivered = n - mine - again
    if delivered > 4again
        crew.failures = div(crew.failures, 2)
    else
        crew.rest = min(2^crew.failures, LONGEST_REST)
        crew.rest < LONGEST_REST && (crew.failures += 1)
    end
    return nothing
end

# Where sums of a worker wait to be added: in a place for each share; matrices in the first two, and in the third where
# a share is done again.
vacant(@nospecialize(pass::Pass), worker::Worker, added::Int) =
    !(pass isa MatrixPass) || worker.sums[1].ticket[] <= added || worker.sums[2].ticket[] <= added
place(@nospecialize(pass::Pass), worker::Worker, i::Int, added::Int) =
    worker.sums[!(pass isa MatrixPass) ? i : worker.sums[1].ticket[] <= added ? 1 : 2]
spare(@nospecialize(pass::Pass), worker::Worker, i::Int) = worker.sums[pass isa MatrixPass ? 3 : i]

"The sums with the ticket `wanted`, or nothing."
function delivery(@nospecialize(pass::Pass), crew::Crew, wanted::Int)
    places = pass isa MatrixPass ? (1:3) : (share_of(wanted):share_of(wanted))
    for worker in crew.workers, k in places
        worker.sums[k].ticket[] == wanted && return worker.sums[k]
    end
    return nothing
end

"""
    beat(worker, net) -> Bool

Called before each block: whether the worker is to go on. The thread that asked lets the monitor beat, which may throw;
helpers must not call out, and notice that a share is needed no more.
"""
function beat(worker::Worker, net)
    crew = net.crew
    if worker === @inbounds crew.workers[1]
        heartbeat(net.monitor)
        return worker.ticket == 0 || delivery(crew.pass, crew, worker.ticket) === nothing
    end
    GC.safepoint()
    return worker.ticket > crew.added[]
end

"Begin an evaluation whose shares from the second on are for all."
function invite!(crew::Crew, net, pass::Pass, θ, v, evaluation::Int, n::Int)
    isempty(crew.tasks) && engage!(crew, net)
    copyto!(crew.θ, θ)
    v === θ || copyto!(crew.v, v)
    crew.pass, crew.n = pass, n
    crew.ticket[] = ticket(evaluation, 2)
    if crew.asleep[] > 0 && trylock(crew.door)          # who goes to sleep just now is not waited for
        notify(crew.door)
        unlock(crew.door)
    end
    return nothing
end

"Start a task for each helper, on a thread of its own if there are as many."
function engage!(crew::Crew{T}, net) where {T}
    crew.θ, crew.v = zeros(T, net.n_params), zeros(T, net.n_params)
    pool = isdefined(Threads, :threadpooltids) ? Threads.threadpooltids(:default) : 1:Threads.nthreads()
    threads = filter(!=(Threads.threadid()), pool)
    for k in 2:length(crew.workers)
        task = Task(() -> help(net, crew.workers[k]))
        task.sticky = true
        ccall(:jl_set_task_tid, Cvoid, (Any, Cint), task, threads[mod1(k - 1, length(threads))] - 1)
        schedule(task)
        push!(crew.tasks, task)
    end
    return nothing
end

"The life of a helper, which ends when the net is collected."
function help(net, worker::Worker)
    crew = net.crew
    while true
        Base.invokelatest(serve, net, worker)       # activations may have got methods since the task began
        lock(crew.door)
        try
            Threads.atomic_add!(crew.asleep, 1)
            share_of(crew.ticket[]) > crew.n && wait(crew.door)
            Threads.atomic_sub!(crew.asleep, 1)
        finally
            unlock(crew.door)
        end
    end
end

"Claim shares and sum them until there are none for a while."
function serve(net, worker::Worker)
    crew, since = net.crew, time_ns()
    while time_ns() - since < PATIENCE
        if share_of(crew.ticket[]) <= crew.n && vacant(crew.pass, worker, crew.added[])
            serve!(net, worker, Threads.atomic_add!(crew.ticket, 1))
            since = time_ns()
        else
            step_aside()
            GC.safepoint()
        end
    end
    return nothing
end

"Let another thread or process have the core of this thread."
step_aside() =
    @static Sys.iswindows() ? ccall((:SwitchToThread, "kernel32"), stdcall, Cint, ()) : ccall(:sched_yield, Cint, ())

# Where the evaluation ends while this runs, another may have begun: what is computed then has the old ticket, and is
# never looked at. An error is met again by the thread that asked, when it does the share itself.
function serve!(net, worker::Worker, claimed::Int)
    crew = net.crew
    pass, i, n = crew.pass, share_of(claimed), crew.n
    i <= n || return nothing
    sums, worker.ticket = place(pass, worker, i, crew.added[]), claimed
    sums.ticket[] = 0
    try
        sum_share!(sums, pass, worker, net, crew.θ, crew.v, i, n) && (sums.ticket[] = claimed)
    catch
    end
    return nothing
end
