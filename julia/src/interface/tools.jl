# What Python asks of this folder: `c_tool` answers short questions with a handle to the answer; what runs for long is a
# problem of its own, which `c_solve` minimises with a monitor.

"""
A question about a net that takes long to answer: `c_solve` does, with a monitor, from the parameters that it is given.
"""
abstract type Question{T} end
number_type(::Question{T}) where {T} = T

struct OnSubspace{T} <: Question{T}
    net::AbstractNet{T}
    subspace::LinearSubspace{T}
    a::Vector{T}
end
function answer(q::OnSubspace, x0, options, monitor)
    o = border_minimize_options(options, border_solver(options))
    m = subspace_minloss(q.net, q.subspace, q.a, x0, o, monitor)
    return Solved(m.x, m.loss, m.gnorm, nothing, m, m.time_run, 0.0, data_part(q.net, m.x, nothing, m.loss, m.gnorm)...,
                  provider(o.optim_solver), "")
end

struct OnGrid{T} <: Question{T}
    net::AbstractNet{T}
    subspace::LinearSubspace{T}
    axes::Vector{Vector{T}}
end
answer(q::OnGrid, x0, options, monitor) =
    search_grid(q.net, q.subspace, q.axes, x0, border_minimize_options(options, border_solver(options)), monitor)

struct Polishing{T} <: Question{T}
    net::AbstractNet{T}
    digits::Float64
    constraint::Any
end
function answer(q::Polishing, x0, options, monitor)
    limits = border_minimize_options(options, NewtonTrustRegion())
    r = polish(q.net, x0; digits=q.digits, maxtime=limits.maxtime, maxiterations=limits.maxiterations, monitor=monitor,
               constraint=border_constraint(q.constraint, x0))
    n = ceil(Int, q.digits)
    return (x=Float64.(r.x), exact_x=to_json(decimal.(r.x, n)), exact_loss=decimal(r.loss, n),
            exact_gnorm=decimal(r.gnorm, n), iterations=r.iterations, converged=r.converged,
            stopped_by=r.stopped_by, total_time=r.total_time)
end

struct Following <: Question{Float64}
    net::Family
    bounds::NTuple{2,Float64}
    max_step::Float64
    max_points::Int
    max_branches::Int
end
answer(q::Following, x0, options, monitor) =
    follow(q.net, x0; bounds=q.bounds, max_step=q.max_step, max_points=q.max_points, max_branches=q.max_branches,
           maxtime=options["maxtime"], monitor=monitor)

struct AtInfinity{T} <: Question{T}
    net::AbstractNet{T}
end
function answer(q::AtInfinity, x0, options, monitor)
    m = minimize_at_infinity(q.net, finite(x0), border_minimize_options(options, border_solver(options)), monitor)
    chains = [(l, c.units,
               merges(c) ? (c.activation isa Tail ? "tails" : "merge") : c.activation isa Tail ? "tail" :
                   c.activation isa Inside ? "inside" : "sharp")
              for (l, layer) in enumerate(m.limit.layers) for c in approaches(layer)]
    return (kind=m.kind, x=m.x, q=m.q, loss=m.loss, gnorm=m.gnorm, channels=channels_json(m.channels),
            chains=to_json(chains),
            constraint=constraint_json(m.constraint), coefficients=m.coefficients, iterations=m.iterations,
            stopped_by=m.stopped_by, reason=m.reason, total_time=m.total_time)
end
constraint_json(::Nothing) = ""
constraint_json(C::Constraint) =
    to_json(Dict("first" => C.first .- 1, "rows" => C.rows .- 1, "values" => C.values, "c" => C.c))
channels_json(found) = to_json([(c.layer, c.units, c.kind, c.cosine, c.distance, c.growth, c.eps) for c in found])

struct Certification{T} <: Question{T}
    net::AbstractNet{T}
    x::Vector{Float64}
    precision::Int
    polish::Bool
    within::Union{Nothing,Float64}
end
function answer(q::Certification, x0, options, monitor)
    c = certify(q.net, q.x; precision=q.precision, polish=q.polish, within=q.within,
                maxtime=Float64(options["maxtime_optim"]), monitor=monitor)
    q.net isa ConstrainedNet && (c = lifted(c, Constraint{Float64}(q.net.constraint)))
    return (proved=c, gauges=to_json(c.gauges), total_time=elapsed(monitor))
end

"`n` significant decimal digits and two spare ones."
decimal(x::BigFloat, n::Int) = setprecision(BigFloat, ceil(Int, (n + 2) * log2(10))) do
    string(BigFloat(x))
end

"A net, or only its layers where a question is about nothing else."
layers_of(net::Net, options) = net.layers
layers_of(net::InfiniteNet, options) = net.student.layers
layers_of(net::ConstrainedNet, options) =
    throw(ArgumentError("this is about all parameters of a network: give the net itself, without its constraint"))
layers_of(::Nothing, options) = tool_layers(options, "layers", "n_features")
network_in(net::AbstractNet) = net
network_in(net::InfiniteNet) = net.student
tool_layers(options, name, features) = build_layers(parse_layers(options[name]), Int(options[features]))

numbers(::AbstractNet{T}, v) where {T} = Vector{T}(v)
matrix(v, rows) = reshape(v, rows, :)
whole(options, name, default) = Int(get(options, name, default))
subspace_of(net::AbstractNet{T}, arrays) where {T} =
    LinearSubspace(Vector{T}(arrays[1]), (Vector{T}(c) for c in eachcol(matrix(arrays[2], n_params(net))))...)

"name => f(net or nothing, options, arrays of Float64)"
const TOOLS = Dict{String,Function}(
    "facts" => (net, o, a) -> facts(),
    "traceback" => (net, o, a) -> last_trace(),
    "jacobian" => (net, o, a) -> jacobian(net, finite(numbers(net, a[1]))),
    "gauss_newton" => (net, o, a) -> gauss_newton(net, finite(numbers(net, a[1]))),
    "hessian_blocks" => (net, o, a) -> hessian_blocks(net, finite(numbers(net, a[1]))),
    "tangent_kernel" => (net, o, a) -> tangent_kernel(net, finite(numbers(net, a[1]))),
    "data_terms" => (net, o, a) -> data_terms(net, finite(numbers(net, a[1]))),
    "constrain" => (net, o, a) -> ConstrainedNet(net, border_constraint(o["constraint"], finite(numbers(net, a[1])))),
    "nearest" => (net, o, a) -> begin
        C = border_constraint(o["constraint"], finite(numbers(net, a[1])))
        embed(C, coordinates(C, numbers(net, a[1])))
    end,
    "embed" => (net, o, a) -> embed(net.constraint, numbers(net, a[1])),
    "coordinates_of" => (net, o, a) -> coordinates(net.constraint, finite(numbers(net, a[1]))),
    "constraint" => (net, o, a) -> net.constraint,
    "rewired" => (net, o, a) ->
        rewired(net.constraint, rewire(layers_in(net), whole(o, "layer", 1), Int.(o["units"]))[2]),
    "split_constraint" => (net, o, a) ->
        split_constraint(net.constraint, layers_in(net), whole(o, "layer", 1), whole(o, "unit", 1))[2],
    "carried" => (net, o, a) -> begin
        C, blocked, _ = carried(layers_in(net_of(Int64(o["to"]))), net)
        (first=C.first, rows=C.rows, values=C.values, c=C.c, blocked=blocked)
    end,
    "gauss_hermite" => (net, o, a) -> gauss_hermite_grid(Int(o["n_features"]), Int(o["order"]), o["threshold"]),
    "trajectory_distance" => (net, o, a) -> border_distance(o, a),
    "classify" => (net, o, a) -> begin
        x = numbers(net, a[1])
        c = classify(net, x; gradient_tolerance=get(o, "gradient_tolerance", nothing),
                     constraint=border_constraint(get(o, "constraint", nothing), x))
        (point=c, explanations=to_json(c.explanations))
    end,
    "split" => (net, o, a) -> split_unit(layers_of(net, o), a[1], whole(o, "layer", 1), whole(o, "unit", 1),
                                         o["gamma"], whole(o, "place", 1))[3],
    "grow" => (net, o, a) -> grown(layers_of(net, o), a[1], whole(o, "layer", 1), length(a) > 1 ? a[2] : nothing)[3],
    "shrink" => (net, o, a) -> shrunk(layers_of(net, o), a[1], whole(o, "layer", 1), whole(o, "unit", 1),
                                      haskey(o, "into") ? Int(o["into"]) : nothing)[3],
    "cosines" => (net, o, a) -> cosine_similarity(permutedims(matrix(a[1], Int(o["columns"]))),
                                                  permutedims(matrix(a[2], Int(o["columns"])))),
    "match" => (net, o, a) -> match_neurons(layers_of(net, o), a[1], tool_layers(o, "teacher", "teacher_features"),
                                            a[2]; layer=whole(o, "layer", 1)),
    "neurons" => (net, o, a) -> length(a) == 1 ? compare_neurons(layers_of(net, o), a[1]; layer=whole(o, "layer", 1)) :
        compare_neurons(layers_of(net, o), a[1], tool_layers(o, "teacher", "teacher_features"), a[2];
                        layer=whole(o, "layer", 1)),
    "linked" => (net, o, a) -> linked(matrix(a[1], isqrt(length(a[1]))), o["tolerance"]),
    "cluster" => (net, o, a) -> begin
        ls = layers_of(net, o)
        cluster_neurons(ls, matrix(a[1], sum(n_params, ls)); layer=whole(o, "layer", 1), tolerance=o["tolerance"],
                        distances=o["distances"])
    end,
    "merge" => (net, o, a) -> merge_neurons(layers_of(net, o), a[1], [Int.(group) for group in o["groups"]];
                                            layer=whole(o, "layer", 1))[3],
    "neurons_along" => (net, o, a) -> begin
        ls = layers_of(net, o)
        neurons_along(ls, matrix(a[1], sum(n_params, ls)); layer=whole(o, "layer", 1))
    end,
    "binomial_intervals" => (net, o, a) -> begin
        bounds = [binomial_interval(Int(k), Int(o["n"]); confidence=o["confidence"]) for k in a[1]]
        permutedims([first.(bounds) last.(bounds)])
    end,
    "twin" => (net, o, a) -> twin(net),
    "recordings" => (net, o, a) -> border_recordings(net, o, a),
    "align" => (net, o, a) -> align(layers_of(net, o), a[1], a[2]),
    "distinct" => (net, o, a) -> begin
        ls = layers_of(net, o)
        labels, representatives = distinct_minima(ls, matrix(a[1], sum(n_params, ls)), a[2]; tolerance=o["tolerance"])
        (labels=labels, representatives=representatives)
    end,
    "point" => (net, o, a) -> point(subspace_of(net, a), a[3]),
    "coordinates" => (net, o, a) -> coordinates(subspace_of(net, a), a[3]),
    "loss_grid" => (net, o, a) -> loss_grid(net, subspace_of(net, a), a[3:end]...),
    "on_subspace" => (net, o, a) -> OnSubspace(net, subspace_of(net, a), numbers(net, a[3])),
    "on_grid" => (net, o, a) -> OnGrid(net, subspace_of(net, a), [numbers(net, axis) for axis in a[3:end]]),
    "to_limit" => (net, o, a) -> begin
        q, eps = to_limit(layers_of(net, o), finite(numbers(net, a[1])))
        (q=q, eps=Float64.(eps))
    end,
    "from_limit" => (net, o, a) -> from_limit(network_in(net), finite(numbers(net, a[1])), a[2]),
    "channel_coefficients" => (net, o, a) -> channel_coefficients(net, finite(numbers(net, a[1]))),
    "next_coefficients" => (net, o, a) -> next_coefficients(net, finite(a[1])),
    "original_metric" => (net, o, a) -> original_metric(net),
    "channels" => (net, o, a) ->
        channels_json(channels(net, a[1]; distance=Float64(o["distance"]), growth=Float64(o["growth"]))),
    "at_infinity" => (net, o, a) -> AtInfinity(net),
    "polishing" => (net, o, a) -> Polishing(net, Float64(o["digits"]), get(o, "constraint", nothing)),
    "proved_different" => (net, o, a) -> begin
        ls = layers_of(net, o)
        losses = Interval.(a[3], a[4])
        D = proved_different(ls, matrix(a[1], sum(n_params, ls)), a[2], losses, Int.(a[5]))
        (different=Int.(D), representatives=representatives(D, losses))
    end,
    "certification" => (net, o, a) ->
        Certification(net, a[1], Int(o["precision"]), o["polish"], get(o, "within", nothing)),
    "spectrum" => (net, o, a) -> spectrum_along(net, matrix(a[1], n_params(net)); k=whole(o, "k", n_params(net))),
    "escape" => (net, o, a) -> escape_saddle(net, numbers(net, a[1]); sign=o["sign"]),
    "following" => (net, o, a) -> Following(haskey(o, "to") ? family(net, net_of(Int64(o["to"]))) : decay(net),
                                            (o["low"], o["high"]), o["max_step"], Int(o["max_points"]),
                                            Int(o["max_branches"])),
    "saddle_line" => (net, o, a) -> saddle_line(net, numbers(net, a[1]),
                                                whole(o, "unit", 1); layer=whole(o, "layer", 1),
                                                gamma=a[2]),
    "off_line" => (net, o, a) -> off_line(layers_in(net), numbers(net, a[1]), whole(o, "layer", 1), whole(o, "unit", 1),
                                          matrix(a[2],
                                                 isqrt(length(a[2]))), permutedims(matrix(a[3], isqrt(length(a[2])))),
                                          whole(o, "rank", 0), o["gamma"]; side=o["side"], size=o["size"],
                                          open=Int.(o["open"])),
    "pair_state" => (net, o, a) -> pair_state(layers_in(net), a[1], whole(o, "layer", 1), whole(o, "unit", 1),
                                              whole(o, "other", 1), Float64(accuracy(net))),
    "passages" => (net, o, a) -> saddle_passages(net,
        Trajectory(a[1], collect(matrix(numbers(net, a[2]), n_params(net))), numbers(net, a[3]), a[4]);
        contrast=o["contrast"], plateau=o["plateau"]))

"""
Recordings by their names and settings. The first array is where the run begins, which a constraint may hold; then those
of the recordings, in the order in which these need them.
"""
function border_recordings(net, options, arrays)
    C, left = border_constraint(get(options, "constraint", nothing), arrays[1]), arrays[2:end]
    free = C === nothing ? net : ConstrainedNet(net, C)
    return Recording[border_recording(net, free, spec, left) for spec in options["recordings"]]
end
function border_recording(net, free, spec, left)
    what = spec["what"]
    layer(name="layer") = Int(get(spec, name, 1))
    what == "eigenvalues" && return recorded_eigenvalues(free; lowest=Int(spec["lowest"]), highest=Int(spec["highest"]))
    what == "norm" && return RecordedNorm()
    what == "unit norms" && return recorded_unit_norms(layers_of(net, spec), layer(), spec["outgoing"])
    what == "cosines of pairs" && return recorded_unit_cosines(layers_of(net, spec), layer(),
                                                               [(Int(i), Int(j)) for (i, j) in spec["pairs"]])
    what == "cosines" && return recorded_unit_cosines(layers_of(net, spec), layer(),
                                                      collect(matrix(popfirst!(left), Int(spec["rows"]))))
    what == "projections" || throw(ArgumentError("no recording is called $what"))
    origin = popfirst!(left)
    return RecordedProjections(collect(matrix(popfirst!(left), length(origin))), origin)
end
