# A solver called over the border: options, callbacks, and a first call on a small scale that compiles it.

const PHASES = (:flow, :minimize, :evaluation)

"""
A monitor that calls `int32 report(int32 phase, int64 iteration, double t, double loss, double gnorm, void *x)`,
with a phase only between blocks of samples (2: `evaluation`): 0 goes on, 1 interrupts, 2 is the callback's wish to
stop.
"""
function foreign_monitor(report::Ptr{Cvoid}, everystep::Bool)
    report == C_NULL && return Monitor()
    interval = everystep ? 0.0 : 0.05
    return Monitor((phase, iteration, t, value, gnorm, x) -> begin
        answer = GC.@preserve x ccall(report, Int32, (Int32, Int64, Float64, Float64, Float64, Ptr{Cvoid}),
            findfirst(isequal(phase), PHASES) - 1, iteration, t, value, gnorm, x === nothing ? C_NULL : pointer(x))
        answer == 0 ? Stop.running : answer == 1 ? Stop.interrupted : Stop.callback
    end; interval=interval)
end

# What `double ask(int64 what, int64 k, double t, void *x)` is asked: the value of an event (0), a schedule's factor
# at step k (1), the first observable (2), the second (3), …
const ASK_EVENT, ASK_SCHEDULE, ASK_OBSERVABLE = 0, 1, 1     # observables count from 1

ask(f::Ptr{Cvoid}, what, k, t, x) =
    GC.@preserve x ccall(f, Float64, (Int64, Int64, Float64, Ptr{Cvoid}), what, k, t,
                         x === nothing ? C_NULL : pointer(x))

"NaN is the answer of a function that failed: the solver returns what it has, and the failure is told afterwards."
answered(value::Float64) = isnan(value) ? throw(Interrupted(Stop.callback)) : value

"`event`: `truth` or `number`, as the user's function returns the one or the other."
function border_event(options, f)
    kind = get(options, "event", "")::String
    kind == "truth" && return (t, x) -> answered(ask(f, ASK_EVENT, 0, t, x)) > 0
    kind == "number" && return (t, x) -> answered(ask(f, ASK_EVENT, 0, t, x))
    return nothing
end

"""
`observables`: an array of `{loss: net}`, `{data_loss: net}` with a net's handle, `ask` for the user's function, or
`{recording: k}`, the k-th of those behind the handle `recordings`.
"""
function border_observables(options, f)
    observables = Pair{String,Any}[]
    for what in get(options, "observables", Any[])::Vector{Any}
        k = length(observables) + 1
        push!(observables, string(k) => border_observable(what, k, options, f))
    end
    return observables
end
function border_observable(what::String, k::Int, options, f)
    what == "ask" || throw(ArgumentError("an observable is \"$what\"; \"ask\" is the only text that it can be"))
    return x -> ask(f, ASK_OBSERVABLE + k, 0, 0.0, x)
end
function border_observable(what::Dict{String,Any}, k::Int, options, f)
    haskey(what, "recording") && return HANDLES[Int(options["recordings"])][Int(what["recording"])]
    (of, handle), = what
    net = net_of(handle)
    return of == "data_loss" ? x -> data_loss(net, x) : x -> loss(net, x)
end

"`schedule`: `{exponential: rate}`, `{cosine: [steps, final]}`, an array of factors, or `ask`."
border_schedule(::Nothing, f) = nothing
function border_schedule(what::String, f)
    what == "ask" || throw(ArgumentError("schedule is \"$what\"; \"ask\" is the only text that it can be"))
    return k -> answered(ask(f, ASK_SCHEDULE, k, 0.0, nothing))
end
border_schedule(factors::Vector, f) = Float64.(factors)
function border_schedule(what::Dict, f)
    haskey(what, "exponential") && return ExponentialDecay(what["exponential"])
    steps, final = what["cosine"]
    return CosineDecay(Int(steps); final=final)
end

named_schedule(options, f) = border_schedule(get(options, "schedule", nothing), f)

function border_method(options, f)
    name = get(options, "alg", "auto")::String
    haskey(options, "rule") && return Base.invokelatest(border_rule, options, f)
    haskey(DISCRETE_METHODS, name) || return named_method(FLOW_METHODS, "alg", name)
    return Base.invokelatest(border_descent, name, options, f)
end
function border_descent(name, options, f)
    schedule = named_schedule(options, f)
    settings = Dict{Symbol,Any}(:schedule => schedule)
    for option in ("learning_rate", "momentum", "alpha", "eps", "weight_decay")
        haskey(options, option) && (settings[Symbol(option)] = options[option])
    end
    haskey(options, "betas") && (settings[:betas] = Tuple(options["betas"]))
    return DISCRETE_METHODS[name](; settings...)
end

const RULES = Dict{String,Any}()

"`rule`: Julia code of a function, see [`UpdateRule`](@ref); `state`: the numbers that it begins with."
function border_rule(options, f)
    rule, state = user_rule(options)
    return UpdateRule(rule; state=state, learning_rate=options["learning_rate"], schedule=named_schedule(options, f))
end
function user_rule(options)
    state = Tuple(Float64.(options["state"]))
    return get!(() -> compile_rule(options["rule"], state), RULES, string(options["rule"], state)), state
end

"The function that a user's rule stands for, tried out."
function compile_rule(code::String, state::Tuple)
    complain(why) = throw(ArgumentError("the rule \"$code\" is not a function of a parameter x, its gradient g, " *
        "the rule's state s and the step k that returns a step and the state, such as \"(x, g, s, k) -> (g, s)\": " *
        "$why"))
    f = evaluate_function(code, complain)
    answer = try
        Base.invokelatest(f, 0.5, 0.25, state, 0)
    catch err
        complain(sprint(showerror, err))
    end
    answer isa Tuple{Real,NTuple{length(state),Real}} ||
        complain("with $(length(state)) numbers of state it gives a $(typeof(answer))")
    return f
end

border_solver(options) =
    named_method(MINIMIZE_METHODS, "optim_solver", get(options, "optim_solver", "auto")::String)

"Load the packages that methods are named of, and compile a user's rule, before the world that knows them is entered."
function load_providers(options)
    alg = get(options, "alg", "auto")::String
    if haskey(options, "rule")
        user_rule(options)
    elseif !haskey(DISCRETE_METHODS, alg)
        load_provider(FLOW_METHODS, alg, FLOW_PROVIDERS)
    end
    load_provider(MINIMIZE_METHODS, get(options, "optim_solver", "auto")::String, MINIMIZE_PROVIDERS)
    return nothing
end

"What Python reads: the best point of a `flow`, a `minimize` or both, and the results of the phases that ran."
struct Solved
    x::Any
    loss::Any
    gnorm::Float64
    ode::Any
    optim::Any
    total_time::Float64
    compile_time::Float64
    data_loss::Float64      # without the regularisers
    data_gnorm::Float64
    provider::String
    channels::String        # units that draw together at x: `channels_json`, "separable", or nothing at all
end

"Loss and gradient norm without the regularisers at a point of that loss and gradient norm."
data_part(net, x, constraint::Constraint, loss, gnorm) =
    data_part(ConstrainedNet(net, constraint), coordinates(constraint, x), nothing, loss, gnorm)
data_part(net, x, ::Nothing, loss, gnorm) = unregularised(net) ? (loss, gnorm) : data_terms(net, x)

"""
The constraint of a run from `x`, or `nothing`: `{freeze: [0, …], tie: [["p[1]", "-p[2]"], …]}`, or the fields of a
[`Constraint`](@ref), `{first: […], rows: […], values: […], c: […]}`; all count from 0.
"""
border_constraint(::Nothing, x) = nothing
border_index(name) = (k = parse(Int, filter(isdigit, name)) + 1; startswith(name, '-') ? -k : k)
function border_constraint(what::Dict{String,Any}, x::Vector{T}) where {T}
    haskey(what, "c") &&
        return Constraint{T}(Int.(what["first"]) .+ 1, Int.(what["rows"]) .+ 1, T.(what["values"]), T.(what["c"]))
    return Constraint(x; freeze=Int.(what["freeze"]) .+ 1, tie=[border_index.(group) for group in what["tie"]])
end

border_solve(q::Question, x, what, options, tauinv, report, f) =
    answer(q, Vector{number_type(q)}(array(number_type(q), x, n_params(q.net))), options,
           foreign_monitor(report, get(options, "everystep", false)))

function border_solve(net::AbstractNet{T}, x, what, options, tauinv, report, f) where {T}
    x0 = copy(parameters(net, x))
    τ = tauinv == C_NULL ? get(options, "tauinv", 1.0) : copy(unsafe_wrap(Array, tauinv, n_params(net)))
    # What few runs need is called by `invokelatest`, which keeps its code apart: packages that are loaded (PythonCall,
    # say) make some of it invalid, and every first run would wait until that is compiled again.
    given = get(options, "constraint", nothing)
    C = Base.invokelatest(border_constraint, given, x0)::Union{Nothing,Constraint{T}}
    options = merge(options, Dict{String,Any}("constraint" => C))
    flows, minimizes = what != "minimize", what != "flow"
    alg = flows ? border_method(options, f) : nothing
    solver = minimizes ? border_solver(options) : nothing
    subject = C === nothing ? net : unknown(ConstrainedNet)(net, C)
    compile_time = (flows ? unknown(warm_up)(subject, alg, haskey(options, "batchsize"))::Float64 : 0.0) +
                   (minimizes ? unknown(warm_up)(subject, solver, false)::Float64 : 0.0)
    monitor = foreign_monitor(report, get(options, "everystep", false))
    if what == "flow"
        ode = Base.invokelatest(flow, net, x0, border_flow_options(options, alg, τ, f), monitor)::FlowResult{T}
        last_poll!(monitor, :flow, ode.iterations, ode.t, ode.loss, ode.gnorm, ode.x)
        best, optim, time, providers = lowest(ode, ode.best), nothing, ode.time_run, provider(alg)
    elseif what == "minimize"
        best = optim = Base.invokelatest(minimize, net, x0, border_minimize_options(options, solver),
                                         monitor)::MinimizeResult{T}
        last_poll!(monitor, :minimize, optim.iterations, optim.time_run, optim.loss, optim.gnorm, optim.x)
        ode, time, providers = nothing, optim.time_run, provider(solver)
    else
        best = Base.invokelatest(train, net, x0, border_flow_options(options, alg, τ, f),
                                 border_minimize_options(options, solver), monitor)::TrainResult{T}
        ode, optim, time = best.ode, best.optim, best.total_time
        providers = optim === nothing ? provider(alg) : join(unique([provider(alg), provider(solver)]), "+")
    end
    data_loss, data_gnorm = C === nothing ? data_part(net, best.x, C, best.loss, best.gnorm) :
                            Base.invokelatest(data_part, net, best.x, C, best.loss, best.gnorm)
    return Solved(best.x, best.loss, best.gnorm, ode, optim, time, compile_time, Float64(data_loss)::Float64,
                  Float64(data_gnorm)::Float64, providers::String,
                  C === nothing ? Base.invokelatest(passing_channels, net, best.x)::String : "")
end
function passing_channels(net, x)
    separates(net, x) && return "separable"
    found = seen_in_passing(net, x)
    return isempty(found) ? "" : unknown(channels_json)(found)::String
end

"""
The options of a phase as the core has them: numbers and flags as they come, functions and methods in place of their
names.
"""
function border_options(::Type{O}, options; others...) where {O}
    given = Dict{Symbol,Any}()
    for (name, value) in options
        given[Symbol(name)] = value
    end
    for name in keys(others)
        given[name] = others[name]
    end
    return phase_options(O, given)
end

border_flow_options(options, alg, τ, f) =
    border_options(FlowOptions, options; alg=alg, tauinv=τ, event=border_event(options, f),
                   observables=border_observables(options, f))
border_minimize_options(options, solver) = border_options(MinimizeOptions, options; optim_solver=solver)

const WARM = Set{UInt}()

"""
    warm_up(net, method, batches) -> seconds

The solvers compile at their first call, which takes seconds that no time limit should count and no Ctrl-C can end: so
the first call is made here, on a few units and samples, which may be two batches.
"""
function warm_up(net::AbstractNet, @nospecialize(method), batches::Bool)
    innermost(net) isa Net || return 0.0
    time = 0.0
    for part in unknown(parts)(net, method)::Vector{Any}
        time += unknown(rehearse)(net, part, batches)::Float64
    end
    return time
end

"The methods that a run with `method` begins with."
parts(net::AbstractNet, @nospecialize(method)) = Any[method]
function parts(net::AbstractNet, ::Auto)
    n, samples = n_params(net), sample_count(net)
    stiff = stiff_method(n, samples)
    may_have_kinks(innermost(net)) && return Any[stiff, stiff_method(n, samples, true), Tsit5()]
    return stiff isa ExpAdams ? Any[stiff] : Any[stiff, Tsit5()]
end
parts(net::AbstractNet, ::AutoMinimizer) =
    n_params(net) > DENSE_PARAMETERS ? Any[LBFGS()] :
    unknown(projects)(net)::Bool ? Any[NewtonLBFGS(true), VariableProjection()] : Any[NewtonLBFGS()]

function rehearse(net::AbstractNet{T}, @nospecialize(method), batches::Bool) where {T}
    inner = innermost(net)::Net{T}
    kind = method isa UpdateRule ? method.f : method isa DiscreteMethod ? typeof(method) : method
    # Types themselves take 25 µs to hash.
    key = hash((batches, net isa ConstrainedNet), objectid(T) ⊻ objectid(kind) ⊻ objectid(typeof(inner.objective)))
    for l in inner.layers, c in l.columns
        key = hash(objectid(typeof(c.activation)), key)
    end
    key in WARM && return 0.0
    start = seconds()
    try
        Base.invokelatest(first_call, unknown(miniature)(net), method, batches)  # compiled when it is called
    catch err        # the run itself will say what is wrong
        get(ENV, "PYMLPGF_DEBUG", "") == "1" &&
            @error "the first call on a small scale failed" exception=(err, catch_backtrace())
    end
    push!(WARM, key)
    return seconds() - start
end

const FIRST_CALL = Dict{String,Any}("maxtime_ode" => 10.0, "maxiterations_ode" => 2.0, "maxtime_optim" => 10.0,
                                    "maxiterations_optim" => 2.0)
first_call(tiny, method::MinimizeMethod, batches) =
    minimize(tiny, random_params(1, tiny), border_minimize_options(FIRST_CALL, method), Monitor())
first_call(tiny, method::FlowMethod, batches) =
    flow(tiny, random_params(1, tiny), border_flow_options(FIRST_CALL, method, 1.0, C_NULL), Monitor())
first_call(tiny, method::DiscreteMethod, batches) =       # the user's schedule may be a function that counts its calls
    flow(tiny, random_params(1, tiny); alg=typeof(method)(), batchsize=batches ? 2 : nothing, maxiterations=2,
         maxtime=10)
first_call(tiny, method::UpdateRule, batches) =
    flow(tiny, random_params(1, tiny); alg=UpdateRule(method.f; state=method.state), batchsize=batches ? 2 : nothing,
         maxiterations=2, maxtime=10)

"A net of the same activations and loss, as small as can be."
function miniature(net::ConstrainedNet)
    inner = miniature(innermost(net))
    return ConstrainedNet(inner, unconstrained(eltype(net.θ), n_params(inner)))
end
function miniature(net::Net{T}) where {T}
    nll = net.objective isa NegativeLogLikelihood
    specs = Any[]
    for l in net.layers
        units = Activation[c.activation for c in l.columns]
        push!(specs, l === last(net.layers) && nll ? (2, last(units), l.bias) :
                     (length(units), length(units) == 1 ? units[1] : units, l.bias))
    end
    samples = n_samples(net) > FEW ? FEW + 1 : 4              # Hessians sum over few samples in another way
    input = T[(-1)^n / n for d in 1:1, n in 1:samples]
    target = nll ? Int[mod1(n, 2) for n in 1:samples] : T[n / samples for o in 1:specs[end][1]::Int, n in 1:samples]
    return Net{T}(build_layers(specs, 1), input, target; loss=net.objective)
end
