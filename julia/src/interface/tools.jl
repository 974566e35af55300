# What Python asks of this folder: `c_tool` answers short questions with a handle to the answer; what runs for long is a
# problem of its own, which `c_solve` minimises with a monitor.

"A question about a net that takes long to answer: `c_solve` does, with a monitor, from the parameters that it is given."
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
    return Solved(m.x, m.loss, m.gnorm, nothing, m, m.time_run, 0.0, Int64(unregularised(q.net)), provider(o.optim_solver))
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
end
function answer(q::Polishing, x0, options, monitor)
    limits = border_minimize_options(options, NewtonTrustRegion())
    r = polish(q.net, x0; digits=q.digits, maxtime=limits.maxtime, maxiterations=limits.maxiterations, monitor=monitor)
    n = ceil(Int, q.digits)
    return (x=Float64.(r.x), exact_x=to_json(decimal.(r.x, n)), exact_loss=decimal(r.loss, n),
            exact_gnorm=decimal(r.gnorm, n), iterations=r.iterations, converged=r.converged,
            stopped_by=r.stopped_by, time_run=r.time_run)
end

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
    return (proved=c, gauges=to_json(c.gauges), time_run=elapsed(monitor))
end

"`n` significant decimal digits and two spare ones."
decimal(x::BigFloat, n::Int) = setprecision(BigFloat, ceil(Int, (n + 2) * log2(10))) do
    string(BigFloat(x))
end

"A net, or only its layers where a question is about nothing else."
layers_of(net::Net, options) = net.layers
layers_of(net::InfiniteNet, options) = net.student.layers
layers_of(::Nothing, options) = tool_layers(options, "layers", "n_features")
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
    "gauss_hermite" => (net, o, a) -> gauss_hermite_grid(Int(o["n_features"]), Int(o["order"])),
    "trajectory_distance" => (net, o, a) -> border_distance(o, a),
    "classify" => (net, o, a) -> begin
        c = classify(net, a[1]; gradient_tolerance=get(o, "gradient_tolerance", nothing))
        (point=c, explanations=to_json(c.explanations))
    end,
    "split" => (net, o, a) -> split_unit(layers_of(net, o), a[1], whole(o, "layer", 1), whole(o, "unit", 1),
                                         o["gamma"])[3],
    "grow" => (net, o, a) -> grown(layers_of(net, o), a[1], whole(o, "layer", 1), length(a) > 1 ? a[2] : nothing)[3],
    "shrink" => (net, o, a) -> shrunk(layers_of(net, o), a[1], whole(o, "layer", 1), whole(o, "unit", 1),
                                      haskey(o, "into") ? Int(o["into"]) : nothing)[3],
    "cosines" => (net, o, a) -> cosine_similarity(permutedims(matrix(a[1], Int(o["columns"]))),
                                                  permutedims(matrix(a[2], Int(o["columns"])))),
    "match" => (net, o, a) -> match_neurons(layers_of(net, o), a[1], tool_layers(o, "teacher", "teacher_features"),
                                            a[2]; layer=whole(o, "layer", 1)),
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
    "polishing" => (net, o, a) -> Polishing(net, Float64(o["digits"])),
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
    "passages" => (net, o, a) -> saddle_passages(net,
        Trajectory(a[1], collect(matrix(numbers(net, a[2]), n_params(net))), numbers(net, a[3]), a[4]);
        contrast=o["contrast"], plateau=o["plateau"]))
