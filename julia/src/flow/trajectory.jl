"""
    Trajectory{T}

Accepted points of a flow: times `t` (M), parameters `x` (P × M), `loss` (M), `gnorm` (M, ‖∇L‖_∞ of the
parameters that move) and `observables` (K × M), of which row k is called `names[k]`: `trajectory[name]`.
"""
struct Trajectory{T<:AbstractFloat}
    t::Vector{Float64}
    x::Matrix{T}
    loss::Vector{T}
    gnorm::Vector{Float64}
    names::Vector{String}
    observables::Matrix{Float64}
end

Trajectory(t, x, loss, gnorm) = Trajectory(t, x, loss, gnorm, String[], zeros(0, length(t)))

"""
    observe(trajectory, observables) -> Trajectory

With `observables`, pairs `name => f` of a name and a function of `x` that returns a number, at every point kept: they
depend on the point only, so nothing is lost by not asking before it is known which points are kept.
"""
function observe(r::Trajectory, observables)
    isempty(observables) && return r
    names = String[string(name) for (name, _) in observables]
    values = Float64[f(r.x[:, m]) for (_, f) in observables, m in 1:length(r)]
    return Trajectory(r.t, r.x, r.loss, r.gnorm, names, reshape(values, length(names), length(r)))
end

function Base.getindex(trajectory::Trajectory, name)
    k = findfirst(isequal(string(name)), trajectory.names)
    k === nothing && throw(ArgumentError("no observable $name was recorded; there are: $(join(trajectory.names, ", "))"))
    return trajectory.observables[k, :]
end

Base.length(trajectory::Trajectory) = length(trajectory.t)
Base.show(io::IO, trajectory::Trajectory) = print(io, "Trajectory with ", length(trajectory), " points")

"""
    Recorder(T, n, samples)

Collects a [`Trajectory`](@ref). With `samples > 0` its memory is bounded: it holds at most `2 samples`
points and, when full, keeps those nearest to `samples` points evenly spaced in log(t + 1), the first and
the last among them. With `samples == 0` it keeps every point.
"""
mutable struct Recorder{T<:AbstractFloat}
    n::Int
    samples::Int
    count::Int
    t::Vector{Float64}
    x::Vector{T}
    loss::Vector{T}
    gnorm::Vector{Float64}
end

function Recorder(::Type{T}, n::Int, samples::Int) where {T}
    capacity = samples > 0 ? 2 * samples : 64
    return Recorder{T}(n, samples, 0, zeros(capacity), zeros(T, n * capacity), zeros(T, capacity),
                       zeros(capacity))
end

function record!(r::Recorder, t, x, loss, gnorm)
    if r.count == length(r.t)
        r.samples > 0 ? thin!(r) : grow!(r)
    end
    r.count += 1
    r.t[r.count] = t
    r.loss[r.count] = loss
    r.gnorm[r.count] = gnorm
    copyto!(r.x, (r.count - 1) * r.n + 1, x, 1, r.n)
    return nothing
end

function grow!(r::Recorder)
    capacity = 2 * length(r.t)
    resize!(r.t, capacity)
    resize!(r.loss, capacity)
    resize!(r.gnorm, capacity)
    resize!(r.x, capacity * r.n)
    return nothing
end

function thin!(r::Recorder)
    r.count <= r.samples && return nothing
    first_log, last_log = log1p(r.t[1]), log1p(r.t[r.count])
    kept, source = 1, 1
    for j in 1:r.samples-1
        # The point nearest to the j-th of the grid, later than the one before, and early enough for those
        # to come.
        target = first_log + (last_log - first_log) * (j / (r.samples - 1))
        latest = r.count - (r.samples - 1 - j)
        source += 1
        while source < latest && abs(log1p(r.t[source+1]) - target) <= abs(log1p(r.t[source]) - target)
            source += 1
        end
        j == r.samples - 1 && (source = r.count)
        kept += 1
        move!(r, kept, source)
    end
    r.count = kept
    return nothing
end

function move!(r::Recorder, to::Int, from::Int)
    to == from && return nothing
    r.t[to] = r.t[from]
    r.loss[to] = r.loss[from]
    r.gnorm[to] = r.gnorm[from]
    copyto!(r.x, (to - 1) * r.n + 1, r.x, (from - 1) * r.n + 1, r.n)
    return nothing
end

function Trajectory(r::Recorder{T}) where {T}
    r.samples > 0 && thin!(r)
    m = r.count
    return Trajectory(r.t[1:m], reshape(r.x[1:m*r.n], r.n, m), r.loss[1:m], r.gnorm[1:m])
end

"""
    DenseOutput{T}
    sol(t) -> x, sol(x, t) -> x

The flow as a piecewise polynomial of the degree d that its method has. On the step from `sol.t[k]` to `sol.t[k+1]`,
with `s = (t - sol.t[k]) / (sol.t[k+1] - sol.t[k])`, parameter i is `Σ_m coefficients[i, m, k] s^(m - 1)`, m =
1..d+1: evaluate it by Horner's rule. `coefficients` is P × (d+1) × steps and `t` has one element more than there
are steps. Times outside `[sol.t[1], sol.t[end]]` are an error.
"""
struct DenseOutput{T<:AbstractFloat}
    t::Vector{Float64}
    coefficients::Array{T,3}
    x0::Vector{T}
end

Base.show(io::IO, sol::DenseOutput) =
    print(io, "DenseOutput of ", length(sol.t) - 1, " steps on [", sol.t[1], ", ", sol.t[end], "]")

(sol::DenseOutput{T})(t::Real) where {T} = sol(zeros(T, length(sol.x0)), t)

function (sol::DenseOutput{T})(x::AbstractVector, t::Real) where {T}
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
    n, root = problem.n, problem.root
    own = interpolant_degree(cache)::Int
    interpolant!(c, offset, cache, problem, state)
    for i in offset+(own+1)*n+1:offset+(degree+1)*n
        c[i] = zero(T)
    end
    problem.scaled || return nothing
    for m in 0:own, i in 1:n
        root[i] > 0 && (c[offset+m*n+i] *= root[i])
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

function DenseOutput(d::DenseRecorder{T}, x0::Vector{T}) where {T}
    n = length(x0)
    return DenseOutput{T}(d.t, reshape(d.coefficients, n, d.degree + 1, length(d.t) - 1), copy(x0))
end
