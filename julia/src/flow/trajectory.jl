"""
    Trajectory{T}

Accepted points of a flow: times `t` (M), parameters `x` (P × M), `loss` (M), `gnorm` (M, ‖∇L‖_∞ of the
parameters that move) and `observables` (K × M), of which row k is called `names[k]`: `trajectory[name]`. Of steps that
were dropped between the points m-1 and m, the logarithms of loss and gradient norm lie within `within[1, m]` and
`within[2, m]` of the line between both points over log t, as far as the method knew them: QNDF and TRBDF2 have a model
of both, which is replaced by the truth at the points that are kept.
"""
struct Trajectory{T<:AbstractFloat}
    t::Vector{Float64}
    x::Matrix{T}
    loss::Vector{T}
    gnorm::Vector{Float64}
    names::Vector{String}
    observables::Matrix{Float64}
    within::Matrix{Float64}
end

Trajectory(t, x, loss, gnorm, within=zeros(2, length(t))) =
    Trajectory(t, x, loss, gnorm, String[], zeros(0, length(t)), within)

"""
    observe(trajectory, observables, monitor, reason) -> Trajectory

With `observables`, pairs `name => f` of a name and a function of `x` that returns a number or a vector, at every point
kept: they depend on the point only, so nothing is lost by not asking before it is known which points are kept. They
take the time that they need. Where the user interrupts them, what is left is NaN; what ended the run, the `reason`,
does not.
"""
function observe(r::Trajectory, observables, monitor::Monitor, reason::Stop.Reason)
    isempty(observables)::Bool && return r
    return Base.invokelatest(observe_each, r, observables, monitor, reason)::typeof(r)
end

function observe_each(r::Trajectory, observables, monitor, reason)
    report = monitor.report
    monitor.deadline, monitor.report = Inf, nothing
    names, counts = String[], Int[]
    for (name, f) in observables
        value = f(r.x[:, 1])
        append!(names, value isa Real ? [string(name)] : ["$name[$k]" for k in eachindex(value)])
        push!(counts, length(value))
    end
    reason in (Stop.interrupted, Stop.callback) || (monitor.report = report)
    values = fill(NaN, length(names), length(r))
    try
        for m in 1:length(r)
            x, row = r.x[:, m], 0
            for ((_, f), count) in zip(observables, counts)
                values[row+1:row+count, m] .= f(x)
                row += count
            end
        end
    catch interruption
        interruption isa Interrupted || rethrow()
    finally
        monitor.report = report
    end
    return Trajectory(r.t, r.x, r.loss, r.gnorm, names, values, r.within)
end

function lifted(r::Trajectory{T}, C::Constraint{T}) where {T}
    x = zeros(T, n_params(C), length(r))
    for m in 1:length(r)
        x[:, m] = embed(C, r.x[:, m])
    end
    return Trajectory(r.t, x, r.loss, r.gnorm, r.names, r.observables, r.within)
end

function Base.getindex(trajectory::Trajectory, name)
    k = findfirst(isequal(string(name)), trajectory.names)
    k === nothing &&
        throw(ArgumentError("no observable $name was recorded; there are: $(join(trajectory.names, ", "))"))
    return trajectory.observables[k, :]
end

"Points of the same names, one trajectory after the other."
Base.vcat(a::Trajectory{T}, b::Trajectory{T}) where {T} =
    Trajectory{T}([a.t; b.t], [a.x b.x], [a.loss; b.loss], [a.gnorm; b.gnorm], a.names, [a.observables b.observables],
                  [a.within b.within])

Base.length(trajectory::Trajectory) = length(trajectory.t)
Base.show(io::IO, trajectory::Trajectory) = print(io, "Trajectory with ", length(trajectory), " points")

"How far points lie above and below lines, in the logarithms of loss and gradient norm, and in any parameter."
struct Strayed
    loss_above::Float64
    loss_below::Float64
    gnorm_above::Float64
    gnorm_below::Float64
    x::Float64
end

Strayed() = Strayed(0, 0, 0, 0, 0)
of_loss(s::Strayed) = max(s.loss_above, s.loss_below)
of_gnorm(s::Strayed) = max(s.gnorm_above, s.gnorm_below)

"""
    Recorder(T, n, (fewest, most))

Collects a [`Trajectory`](@ref) of at most `most` points; of all if `most == 0`. It holds at most twice as many and,
when full, drops those that are missed least by straight lines in log t between their neighbours. First go points
without which such lines stay within [`WITHIN`](@ref) of every point that was dropped, in the logarithms of loss and
gradient norm and in the parameters, until `fewest` are left. If those that remain are more than `most`, the gradient
norm is given more room, in proportion to how much it jumps from step to step, and then loss and parameters too. So the
points lie where something happens, whatever the clock reads at the end, and how far lines may be off is known:
`strayed`.
"""
Base.@kwdef mutable struct Recorder{T<:AbstractFloat}
    n::Int
    fewest::Int
    most::Int
    capacity::Int = most > 0 ? 2 * fewest : 64                      # at first
    count::Int = 0
    t::Vector{Float64} = zeros(capacity)
    x::Vector{T} = zeros(T, n * capacity)
    loss::Vector{T} = zeros(T, capacity)
    gnorm::Vector{Float64} = zeros(capacity)
    # loss and gradient norm are a model's, see `solve_newton!`
    modelled::Vector{Bool} = zeros(Bool, capacity)
    # how far points dropped since the point before lie, at most, from the line between both
    strayed::Vector{Strayed} = fill(Strayed(), capacity)
    # the same where everything has more room: of the lowest loss so far, of the gradient norm beyond its jumps
    missed::Vector{Float64} = zeros(capacity)
    log_t::Vector{Float64} = zeros(capacity)
    log_loss::Vector{Float64} = zeros(capacity)
    log_lowest::Vector{Float64} = zeros(capacity)                   # the lowest loss so far
    log_gnorm::Vector{Float64} = zeros(capacity)
    # how much log gnorm jumps between steps, around here
    rough::Vector{Float64} = zeros(capacity)
    log_gnorms::Tuple{Float64,Float64} = (NaN, NaN)                 # at the last two points that were recorded
    before::Vector{Int} = Int[]                                     # what `thin!` works in
    after::Vector{Int} = Int[]
    cost::Vector{Float64} = Float64[]
    cheapest::Vector{Int} = Int[]
end

Recorder(::Type{T}, n::Int, (fewest, most)::Tuple{Int,Int}) where {T} = Recorder{T}(n=n, fewest=fewest, most=most)

function record!(r::Recorder, t, x, loss, gnorm, modelled::Bool=false)
    r.count == length(r.t) && make_room!(r)
    r.count += 1
    r.t[r.count] = t
    r.loss[r.count] = loss
    r.gnorm[r.count] = gnorm
    r.modelled[r.count] = modelled
    r.strayed[r.count] = Strayed()
    r.missed[r.count] = 0.0
    r.log_t[r.count] = logarithm(t)
    r.log_loss[r.count] = logarithm(loss)
    r.log_lowest[r.count] = min(r.count > 1 ? r.log_lowest[r.count-1] : Inf, r.log_loss[r.count])
    r.log_gnorm[r.count] = logarithm(gnorm)
    r.rough[r.count] = roughness!(r, r.log_gnorm[r.count])
    copyto!(r.x, (r.count - 1) * r.n + 1, x, 1, r.n)
    return nothing
end

logarithm(v) = log(max(Float64(v), floatmin(Float64)))

"Room for a quarter more points at least: of those dropped, or of memory."
function make_room!(r::Recorder)
    full, limit = length(r.t), 2 * r.most
    if r.most > 0
        unknown(thin!)(r, r.fewest + div(r.fewest, 2), full < limit ? full : r.most + div(r.most, 2))
        (full >= limit || 4 * r.count <= 3 * full) && return nothing
    end
    capacity = r.most > 0 ? min(2 * full, limit) : 2 * full
    for v in (r.t, r.loss, r.gnorm, r.modelled, r.strayed, r.missed, r.log_t, r.log_loss, r.log_lowest, r.log_gnorm,
              r.rough)
        resize!(v, capacity)
    end
    resize!(r.x, capacity * r.n)
    return nothing
end

# Of so many points the cheapest is remembered, so that a drop looks at a few hundred costs, not at all of 20 000.
const COST_BLOCK = 64

"""
Drop points until `most` are left, and go on to `fewest` while lines stay within their bound, each time the one whose
neighbours replace it best: see [`cost_without`](@ref). The first two points stay (there is no line to time zero) and
the last one.
"""
function thin!(r::Recorder{T}, fewest::Int, most::Int) where {T}
    m = r.count
    m <= fewest && return nothing
    pinned = most > 3 ? 2 : 1
    blocks = cld(m, COST_BLOCK)
    before, after, cost = resize!(r.before, m), resize!(r.after, m), resize!(r.cost, m)
    cheapest = resize!(r.cheapest, blocks)
    size = largest_entry(r.x, m * r.n)
    for j in 1:m
        before[j], after[j], cost[j] = j - 1, j + 1, Inf
    end
    for j in pinned+1:m-1
        cost[j] = cost_without(r, j, size)
    end
    for b in 1:blocks
        find_cheapest!(r, b)
    end
    for left in m-1:-1:fewest
        j = cheapest[1]
        for b in 2:blocks
            cost[cheapest[b]] < cost[j] && (j = cheapest[b])
        end
        left < most && cost[j] > 1 && break
        i, k = before[j], after[j]
        r.strayed[k], r.missed[k] = strayed_without(r, j)
        cost[j] = Inf
        after[i], before[k] = k, i
        i > pinned && (cost[i] = cost_without(r, i, size))
        k < m && (cost[k] = cost_without(r, k, size))
        for l in (i, j, k)
            find_cheapest!(r, cld(l, COST_BLOCK))
        end
    end
    to, from = 1, after[1]
    while from <= m
        to += 1
        move!(r, to, from)
        from = after[from]
    end
    r.count = to
    return nothing
end

finish_thinning!(r::Recorder) = 0 < r.most && r.fewest < r.count && unknown(thin!)(r, r.fewest, r.most)

function find_cheapest!(r::Recorder, block::Int)
    last = min(block * COST_BLOCK, r.count)
    j = (block - 1) * COST_BLOCK + 1
    for l in j+1:last
        r.cost[l] < r.cost[j] && (j = l)
    end
    r.cheapest[block] = j
    return nothing
end

function largest_entry(x::Vector, n::Int)
    largest = 0.0
    @inbounds @simd for i in 1:n
        a = abs(Float64(x[i]))
        largest = ifelse(a > largest, a, largest)       # `max`, which heeds NaN, takes five times as long
    end
    return largest
end

"""
What becomes of `strayed` and `missed` of the point after `j` if `j` is dropped. The line from the point before to the
one after is off at `j` by some d, and between them from the two lines through `j` by at most that, and less the further
from `j`: a point dropped before, which lay above its line by a, lies above the new one by at most a + max(d, 0).
"""
function strayed_without(r::Recorder{T}, j::Int) where {T}
    i, k = r.before[j], r.after[j]
    span = r.log_t[k] - r.log_t[i]
    s = span > 0 ? (r.log_t[j] - r.log_t[i]) / span : 0.0
    a, b, c, off = (i - 1) * r.n, (j - 1) * r.n, (k - 1) * r.n, 0.0
    @inbounds @simd for p in 1:r.n
        d = abs(Float64(r.x[b+p]) - (1 - s) * Float64(r.x[a+p]) - s * Float64(r.x[c+p]))
        off = ifelse(d > off, d, off)
    end
    loss, gnorm = off_line(r.log_loss, -Inf, i, j, k, s), off_line(r.log_gnorm, -Inf, i, j, k, s)
    early, late = r.strayed[j], r.strayed[k]
    strayed = Strayed(max(early.loss_above, late.loss_above) + max(loss, 0.0),
                      max(early.loss_below, late.loss_below) + max(-loss, 0.0),
                      max(early.gnorm_above, late.gnorm_above) + max(gnorm, 0.0),
                      max(early.gnorm_below, late.gnorm_below) + max(-gnorm, 0.0), max(early.x, late.x) + off)
    round_off = log(64 * Float64(eps(T)))
    missed = max(abs(off_line(r.log_lowest, r.log_loss[1] + 2 * round_off, i, j, k, s)),
                 abs(off_line(r.log_gnorm, r.log_gnorm[1] + round_off, i, j, k, s)) - JUMPS * r.rough[j],
                 r.missed[j], r.missed[k])
    return strayed, missed
end

"""
What it costs to drop `j`: at most 1 while everything stays within [`WITHIN`](@ref); 1 to 2 while loss and parameters
do, less the less the gradient norm is off by for its jumps; else more than 2.
"""
function cost_without(r::Recorder, j::Int, size::Float64)
    strayed, missed = strayed_without(r, j)
    x = size > 0 ? strayed.x / size : 0.0
    gnorm = of_gnorm(strayed)
    smooth = max(of_loss(strayed), x) / WITHIN
    max(smooth, gnorm / WITHIN) <= 1 && return max(smooth, gnorm / WITHIN)
    rough = gnorm / (WITHIN + JUMPS * r.rough[j])
    smooth <= 1 && return 1 + rough / (1 + rough)
    worst = 2 + max(missed, x)
    return isfinite(worst) ? worst : floatmax(Float64)
end

"""
    WITHIN

Straight lines in log t between the points kept are off by at most a twentieth where so many points are enough: in loss
and gradient norm relative to themselves, in parameters relative to the largest of all.
"""
const WITHIN = 0.05

# With stiff methods loss and gradient may jump from step to step within the tolerance: a loss of 1e-26 by a factor of
# 1e4; of the demo's first flow the gradient norm by a factor of 3 in most of 8000 steps. Few points cannot follow that.
const JUMPS = 3.0

"A running mean of how far log gnorm lies from the line through its neighbours, after one more step."
function roughness!(r::Recorder, this::Float64)
    before, last = r.log_gnorms
    r.log_gnorms = (last, this)
    mean = r.count > 1 ? r.rough[r.count-1] : 0.0
    jump = abs(last - (before + this) / 2)
    return isfinite(jump) ? 0.8 * mean + 0.2 * jump : mean
end

# How far the logarithm at `j` lies above the line; below `least` there is only round-off.
off_line(v::Vector{Float64}, least::Float64, i::Int, j::Int, k::Int, s::Float64) =
    max(v[j], least) - (1 - s) * max(v[i], least) - s * max(v[k], least)

function move!(r::Recorder, to::Int, from::Int)
    to == from && return nothing
    r.t[to], r.loss[to], r.gnorm[to] = r.t[from], r.loss[from], r.gnorm[from]
    r.modelled[to], r.strayed[to], r.missed[to] = r.modelled[from], r.strayed[from], r.missed[from]
    for v in (r.log_t, r.log_loss, r.log_lowest, r.log_gnorm, r.rough)
        v[to] = v[from]
    end
    copyto!(r.x, (to - 1) * r.n + 1, r.x, (from - 1) * r.n + 1, r.n)
    return nothing
end

function Trajectory(r::Recorder{T}) where {T}
    finish_thinning!(r)
    m = r.count
    within = [f(r.strayed[k]) for f in (of_loss, of_gnorm), k in 1:m]
    return Trajectory(r.t[1:m], reshape(r.x[1:m*r.n], r.n, m), r.loss[1:m], r.gnorm[1:m], within)
end

"""
    DenseSolution{T}
    sol(t) -> x, sol(x, t) -> x

The flow as a piecewise polynomial of the degree d that its method has. On the step from `sol.t[k]` to `sol.t[k+1]`,
with `s = (t - sol.t[k]) / (sol.t[k+1] - sol.t[k])`, parameter i is `Σ_m coefficients[i, m, k] s^(m - 1)`, m =
1..d+1: evaluate it by Horner's rule. `coefficients` is P × (d+1) × steps and `t` has one element more than there
are steps. Times outside `[sol.t[1], sol.t[end]]` are an error.
"""
struct DenseSolution{T<:AbstractFloat}
    t::Vector{Float64}
    coefficients::Array{T,3}
    x0::Vector{T}
end

function lifted(sol::DenseSolution{T}, C::Constraint{T}) where {T}
    _, m, steps = size(sol.coefficients)
    coefficients = zeros(T, n_params(C), m, steps)
    for k in 1:steps, d in 1:m
        v = sol.coefficients[:, d, k]
        coefficients[:, d, k] = d == 1 ? embed(C, v) : image(C, v)
    end
    return DenseSolution{T}(sol.t, coefficients, embed(C, sol.x0))
end

Base.show(io::IO, sol::DenseSolution) =
    print(io, "DenseSolution of ", length(sol.t) - 1, " steps on [", sol.t[1], ", ", sol.t[end], "]")

(sol::DenseSolution{T})(t::Real) where {T} = sol(zeros(T, length(sol.x0)), t)

function (sol::DenseSolution{T})(x::AbstractVector, t::Real) where {T}
    sol.t[1] <= t <= sol.t[end] ||
        throw(DomainError(t, "the flow was integrated from $(sol.t[1]) to $(sol.t[end])."))
    length(sol.t) == 1 && return copyto!(x, sol.x0)
    k = min(searchsortedlast(sol.t, t), length(sol.t) - 1)
    h = sol.t[k+1] - sol.t[k]
    s = h > 0 ? T((t - sol.t[k]) / h) : one(T)
    n, m = size(sol.coefficients)
    return evaluate_step!(x, sol.coefficients, (k - 1) * n * m, m - 1, s)
end

"The polynomial of a step, whose coefficients begin after `offset`, at `s`."
function evaluate_step!(x, c, offset::Int, degree::Int, s)
    n = length(x)
    @inbounds for i in 1:n
        value = c[offset+degree*n+i]
        for m in degree-1:-1:0
            value = c[offset+m*n+i] + s * value
        end
        x[i] = value
    end
    return x
end

# The coefficients while they grow, in one vector.
mutable struct DenseRecorder{T<:AbstractFloat}
    t::Vector{Float64}
    degree::Int
    coefficients::Vector{T}
end

function record_step!(d::DenseRecorder{T}, @nospecialize(cache::StepCache), problem::FlowProblem{T},
                      state::FlowState{T}) where {T}
    offset = length(d.coefficients)
    resize!(d.coefficients, offset + (d.degree + 1) * problem.n)
    interpolate_step!(d.coefficients, offset, d.degree, cache, problem, state)
    return nothing
end

"The polynomial of the trial step in the parameters themselves, as `degree + 1` coefficients each."
function interpolate_step!(c::Vector{T}, offset::Int, degree::Int, @nospecialize(cache::StepCache),
                           problem::FlowProblem{T}, state::FlowState{T}) where {T}
    n, root, kinks = problem.n, problem.root, problem.kinks
    kinks === nothing || !kinks.cut || return copyto!(c, offset + 1, kinks.step, 1, n * (degree + 1))
    own = interpolant_degree(cache)::Int
    interpolant!(c, offset, cache, problem, state)
    for i in offset+(own+1)*n+1:offset+(degree+1)*n
        c[i] = zero(T)
    end
    problem.scaled || return nothing
    for m in 0:own, i in 1:n
        c[offset+m*n+i] *= root[i]
    end
    return nothing
end

"The step that an event cut at `s` of its length: its polynomial, stretched."
function record_cut_step!(d::DenseRecorder{T}, c::Vector{T}, n::Int, s::Float64) where {T}
    for m in 0:d.degree, i in 1:n
        push!(d.coefficients, c[m*n+i] * T(s)^m)
    end
    return nothing
end

function DenseSolution(d::DenseRecorder{T}, x0::Vector{T}) where {T}
    n = length(x0)
    return DenseSolution{T}(d.t, reshape(d.coefficients, n, d.degree + 1, length(d.t) - 1), copy(x0))
end
