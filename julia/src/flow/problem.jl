"""
    FlowMethod

What a user chooses to integrate the flow with, such as `Rodas5P()`.
"""
abstract type FlowMethod end

"The methods by name: each file of `methods/` registers its own."
const FLOW_METHODS = Registry("alg")

"""
    StepCache{T}

The state of one method: what it remembers and its buffers, beside the [`FlowState`](@ref), which says where the flow
is. A method implements [`make_state`](@ref), [`method_name`](@ref) of its cache, and

- `step!(cache, problem, state) -> Bool`: a trial step of length `state.h` from `state.y`, into
  `state.ynew` with the error estimate in `state.err`; `false` if no step of that length can be made. A
  method that has evaluated the gradient at `ynew` leaves it in `state.gnew` and sets `state.evaluated`.
- `accepted!(cache)`: the trial step was accepted; by default there is nothing to note.
- `interpolant!(coefficients, offset, cache, problem, state)`: write the polynomial of the step, `n × (d + 1)`
  numbers, where `interpolant_degree(cache)` is d.
- `measure!(cache, state)`: `state.stiffness` and `state.longest` after a good step.
- `next_factor!(cache, control, state, problem, clean, indefinite)`: `state.factor`, what to multiply `state.h` with
  after an accepted step; by default what the controller says.
- `restart!(cache)`: the field changes at the last accepted point.
- `rejections(cache)`: trial steps that the method itself has rejected.
- `controller(cache)`, `escape_limit(cache, reltol)`, `watch_escape(cache)`.
"""
abstract type StepCache{T} end

function next_factor!(::StepCache, control, state, problem, clean::Bool, indefinite::Bool)
    state.factor = accept_factor!(control, state.error, state.h, clean, indefinite)
    return nothing
end

accepted!(::StepCache) = nothing
rejections(::StepCache) = 0
restart!(cache::StepCache) = accepted!(cache)

"""
    FlowProblem(net, tauinv)

The flow dx/dt = -tauinv ∘ ∇L(x) in the coordinates `y = x ./ sqrt.(tauinv)`, where it is the gradient flow of
`L(sqrt.(tauinv) ∘ y)` and its Jacobian is symmetric. `tauinv` is positive: parameters that do not move are
none of this net's (see [`motion`](@ref)). When all of `tauinv` is one, `y` is `x`.

The net's type is deliberately not a parameter: the solvers compile once for each number type, whatever the
network. What that costs is one dynamic call for each evaluation, about 0.1 µs and no allocation.
"""
mutable struct FlowProblem{T<:AbstractFloat}
    net::AbstractNet{T}
    kinks::Union{Nothing,Kinks{T}}
    n::Int
    scaled::Bool
    root::Vector{T}
    x::Vector{T}
    v::Vector{T}
    value::Base.RefValue{T}
    gnorm::Float64
    nfev::Int
    nhev::Int
    nhvp::Int
end

function FlowProblem(net::AbstractNet{T}, tauinv) where {T}
    n = n_params(net)::Int
    root = ones(T, n)
    if tauinv isa Real
        fill!(root, sqrt(T(tauinv)))
    else
        map!(τ -> sqrt(T(τ)), root, tauinv)
    end
    return FlowProblem{T}(net, Kinks(net)::Union{Nothing,Kinks{T}}, n, any(!=(one(T)), root), root, zeros(T, n),
                          zeros(T, n), Ref(zero(T)), 0.0, 0, 0, 0)
end

"Parameters `x` at the scaled point `y`."
function unscale!(x, problem::FlowProblem, y)
    root = problem.root
    @inbounds @simd for i in eachindex(y)
        x[i] = root[i] * y[i]
    end
    return x
end

"Scaled point `y` of the parameters `x`."
function scale!(y, problem::FlowProblem, x)
    root = problem.root
    @inbounds @simd for i in eachindex(x)
        y[i] = x[i] / root[i]
    end
    return y
end

"Parameters at `y`, without a copy where `y` is `x` already."
parameters(problem::FlowProblem, y) = problem.scaled ? unscale!(problem.x, problem, y) : y

"The scaled gradient `g` at `y`."
function gradient_at!(g, problem::FlowProblem, y)
    problem.nfev += 1
    unknown(gradient!)(g, problem.net, parameters(problem, y))
    problem.scaled && scale_gradient!(g, problem.root)
    slides(problem) && unknown(project_gradient!)(g, problem, y)
    return g
end

"""
The scaled gradient `g` at `y`; the loss goes to `problem.value[]` and the largest component of the unscaled
gradient to `problem.gnorm`.
"""
function value_and_gradient_at!(g, problem::FlowProblem, y)
    problem.nfev += 1
    unknown(value_and_gradient_into!)(problem.value, g, problem.net, parameters(problem, y))
    problem.gnorm = finite_maximum(g)
    problem.scaled && scale_gradient!(g, problem.root)
    if slides(problem)
        unknown(project_gradient!)(g, problem, y)
        problem.gnorm = unscaled_maximum(g, problem.root)
    end
    return nothing
end

"The scaled Hessian at `y`; only its lower triangle is scaled."
function hessian_at!(H, problem::FlowProblem, y)
    problem.nhev += 1
    unknown(hessian!)(H, problem.net, parameters(problem, y))
    root = problem.root
    if problem.scaled
        @inbounds for j in 1:problem.n, i in j:problem.n
            H[i, j] *= root[i] * root[j]
        end
    end
    slides(problem) && unknown(project_hessian!)(H, problem, y)
    return nothing
end

"The product of the scaled Hessian at `y` with `v`."
function hvp_at!(out, problem::FlowProblem, y, v)
    problem.nhvp += 1
    if slides(problem)
        return unknown(project_product!)(out, problem, y, v)::Nothing
    elseif !problem.scaled
        unknown(hvp!)(out, problem.net, y, v)
        return nothing
    end
    root = problem.root
    @. problem.v = root * v
    unknown(hvp!)(out, problem.net, unscale!(problem.x, problem, y), problem.v)
    scale_gradient!(out, root)
    return nothing
end

function scale_gradient!(g, root)
    @inbounds @simd for i in eachindex(g)
        g[i] *= root[i]
    end
    return g
end

# NaN when any component is not finite.
function finite_maximum(g)
    largest = 0.0
    bad = false
    @inbounds for i in eachindex(g)
        a = abs(Float64(g[i]))
        bad |= !isfinite(a)
        largest = max(largest, a)
    end
    return bad ? NaN : largest
end

"""
    FlowState(problem)

Where an integration is: the last accepted point, the trial point, and the step between them.
"""
Base.@kwdef mutable struct FlowState{T<:AbstractFloat}
    y::Vector{T}
    ynew::Vector{T} = zero(y)
    g::Vector{T} = zero(y)
    gnew::Vector{T} = zero(y)
    err::Vector{T} = zero(y)
    loss::T = NaN
    lossnew::T = 0
    loss_scale::T = 1               # the loss at the start, at least one: the square of what residuals are made of
    gnorm::Float64 = NaN
    gnormnew::Float64 = NaN
    evaluated::Bool = false
    estimated::Bool = false         # loss and gradient at the trial point are those of a model
    modelled::Bool = false          # so are those at the last accepted point
    exact::Bool = false             # a model's are not wanted
    goal_gnorm::Float64 = 0         # near these they must be the true ones
    goal_loss::Float64 = 0
    continuous::Bool = false        # the solution is wanted between the points too
    error::Float64 = 0              # norm of err, relative to the tolerance
    stiffness::Float64 = 0          # h times the curvature of the step, where the method has a limit of stability
    longest::Float64 = Inf          # the longest step that limit allows
    h::Float64 = 0
    factor::Float64 = 1             # to the next step
    t::Float64 = 0
    t_low::Float64 = 0
    t_end::Float64 = Inf
    abstol::Float64
    reltol::Float64
    escape::Float64 = 1
end
FlowState(problem::FlowProblem{T}, abstol, reltol) where {T} =
    FlowState{T}(y=zeros(T, problem.n), abstol=abstol, reltol=reltol)

"Loss and gradient at the trial point, unless the method has them already."
function evaluate_trial!(problem::FlowProblem, state::FlowState)
    state.evaluated && return nothing
    state.estimated = false
    value_and_gradient_at!(state.gnew, problem, state.ynew)
    state.lossnew = problem.value[]
    state.gnormnew = problem.gnorm
    state.evaluated = true
    return nothing
end

"Loss and gradient at the current point, for what they are computed with has changed."
function evaluate_point!(problem::FlowProblem, state::FlowState)
    value_and_gradient_at!(state.g, problem, state.y)
    state.loss, state.gnorm = problem.value[], problem.gnorm
    return nothing
end

"The same at the trial point, which has moved."
function reevaluate_trial!(problem::FlowProblem, state::FlowState)
    state.evaluated = false
    return evaluate_trial!(problem, state)
end

"""
Make the trial point the current one. The clock is a sum of two floats: on a plateau that lasts until t = 1e20
the steps of the escape that follows are shorter than the spacing of floats there.
"""
function advance!(state::FlowState)
    state.y, state.ynew = state.ynew, state.y
    state.g, state.gnew = state.gnew, state.g
    state.loss = state.lossnew
    state.gnorm = state.gnormnew
    state.modelled = state.estimated
    step = state.h + state.t_low
    t = state.t + step
    rest = t - state.t
    low = (state.t - (t - rest)) + (step - rest)
    state.t_low = isfinite(low) ? low : 0.0
    state.t = t
    return nothing
end

"`out = y + scale * Σ_j weights[j] * k[j]` over the first `m` stages."
function combine!(out::Vector{T}, y::Vector{T}, scale::T, weights::Vector{T}, k::Vector{Vector{T}},
                  m) where {T}
    copyto!(out, y)
    for j in 1:m
        add_scaled!(out, scale * weights[j], k[j])
    end
    return out
end

function add_scaled!(out::Vector{T}, a::T, v::Vector{T}) where {T}
    iszero(a) && return out
    @inbounds @simd for i in eachindex(out)
        out[i] += a * v[i]
    end
    return out
end
