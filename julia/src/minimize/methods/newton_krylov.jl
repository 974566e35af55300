# Newton's method for many parameters: products with the Hessian, never the Hessian.

"""
    NewtonKrylov(; products = 250, memory = 20)

Truncated Newton method: conjugate gradients on products with the Hessian, up to `products` of them a step, stopped at
the boundary of a trust region or by negative curvature, which is followed (Steihaug, SIAM J. Numer. Anal. 20 (1983)
626), as exactly as convergence deserves (Eisenstat & Walker, SIAM J. Sci. Comput. 17 (1996) 16), then Hager and Zhang's
line search. The conjugate directions of one step precondition the next by way of a limited-memory BFGS matrix of
`memory` pairs (Morales & Nocedal, SIAM J. Optim. 10 (2000) 1079). Memory: (2`memory` + 11)P numbers.
"""
struct NewtonKrylov <: MinimizeMethod
    products::Int
    memory::Int
end
function NewtonKrylov(; products::Integer=250, memory::Integer=20)
    products >= 1 || throw(ArgumentError("products = $products: must be at least 1."))
    memory >= 0 || throw(ArgumentError("memory = $memory: must not be negative."))
    return NewtonKrylov(Int(products), Int(memory))
end
method_name(::NewtonKrylov) = "NewtonKrylov"

Base.@kwdef mutable struct KrylovState{T<:AbstractFloat} <: LineSearchState{T}
    x::Vector{T}
    gradient::Vector{T}
    loss::T
    gnorm::T
    lowest_loss::T = loss
    lowest_gnorm::T = gnorm
    ray::Ray{T} = Ray{T}(length(x))
    residual::Vector{T} = zero(x)
    direction::Vector{T} = zero(x)          # of conjugate gradients
    product::Vector{T} = zero(x)            # H * direction
    preconditioned::Vector{T} = zero(x)
    preconditioner::LimitedInverse{T}
    collector::LimitedInverse{T}            # of the pairs for the next preconditioner
    radius::T = 0                           # in the norm of the preconditioner
    curvature::T = 0                        # the largest seen, relative to ‖v‖²
    forcing::T = 0.5
    before::T = NaN                         # ‖∇L‖₂ when the last step was made
    predicted::T = 0
    length::T = 0
    boundary::Bool = false
    escaping::Bool = false                  # `direction` is of negative curvature where the gradient vanishes
    failures::Int = 0
    stalled::Int = 0
end

function make_state(method::NewtonKrylov, objective::Objective{T}, x0::Vector{T}) where {T}
    pairs() = inverse_model(LBFGS(max(method.memory, 1)), T, length(x0))
    return KrylovState{T}(; first_point(objective, x0)..., preconditioner=pairs(), collector=pairs())
end

const KRYLOV_FAILURES = 5
const KRYLOV_STALLED = 8

function step!(state::KrylovState{T}, objective::Objective{T}, method::NewtonKrylov) where {T}
    ray = state.ray
    ray.loss = state.loss
    slack = loss_noise(state.lowest_loss)
    if state.escaping
        state.escaping = false
        copyto!(ray.direction, state.direction)
        found = descend!(ray, objective, state.x, state.gradient)
        state.radius = zero(T)
    else
        solve_truncated!(state, objective, method) || return Stop.diverged
        found = search_step!(state, objective, slack)
    end
    if !(found && !worse(ray.trial_loss, state.lowest_loss))
        state.failures += 1
        state.radius *= T(0.1)
        reset!(state.preconditioner)
        state.forcing = min(state.forcing, T(0.01))
        return state.failures >= KRYLOV_FAILURES ? Stop.roundoff : Stop.running
    end
    state.failures = 0
    accepted!(state)
    return state.stalled >= KRYLOV_STALLED ? Stop.roundoff : Stop.running
end

"Line search along the step, and the next radius from how well the model foretold the loss."
function search_step!(state::KrylovState{T}, objective::Objective{T}, slack::T) where {T}
    ray = state.ray
    ray.slope = dot_product(state.gradient, ray.direction)
    ray.slope < 0 && isfinite(ray.slope) || return false
    found = line_search!(ray, objective, state.x, one(T), slack) || calms!(ray, objective, state)
    found || return false
    if ray.alpha < 1
        state.radius = ray.alpha * state.length
    elseif state.boundary && (ray.alpha > 1 || state.loss - ray.trial_loss > T(0.75) * state.predicted)
        state.radius = max(state.radius, 2 * ray.alpha * state.length)
    end
    return true
end

"""
Conjugate gradients for H s = −∇L from s = 0, preconditioned; the step is left in the ray's direction. False if a
product is not finite.
"""
function solve_truncated!(state::KrylovState{T}, objective::Objective{T}, method::NewtonKrylov) where {T}
    s, r, p, Hp, z = state.ray.direction, state.residual, state.direction, state.product, state.preconditioned
    M, collector = state.preconditioner, state.collector
    reset!(collector)
    fill!(s, zero(T))
    for i in eachindex(r)
        r[i] = -state.gradient[i]
    end
    gnorm = two_norm(state.gradient)
    tolerance = force!(state, gnorm) * gnorm
    apply_inverse!(z, M, r)
    copyto!(p, z)
    rz = dot_product(r, z)
    if !(rz > 0)        # the preconditioner has lost definiteness to rounding
        reset!(M)
        copyto!(z, r)
        copyto!(p, r)
        rz = dot_product(r, r)
    end
    ss, sp, pp = zero(T), zero(T), rz           # in the norm of the preconditioner's inverse
    iszero(state.radius) && (state.radius = sqrt(rz) * first_radius(state))
    state.predicted, state.boundary = zero(T), false
    for k in 1:min(method.products, 2 * length(s) + 10)
        evaluate_product!(Hp, objective, state.x, p)
        curvature = dot_product(p, Hp)
        isfinite(curvature) || return k > 1
        size = dot_product(p, p)
        state.curvature = max(state.curvature, abs(curvature) / size)
        alpha = rz / curvature
        if curvature <= eps(T) * state.curvature * size || ss + alpha * (2sp + alpha * pp) >= state.radius^2
            gap = max(state.radius^2 - ss, zero(T))
            alpha = gap / (sp + sqrt(sp^2 + pp * gap))
            iszero(pp) && break
            add_scaled!(s, alpha, p)
            state.predicted += alpha * (rz - alpha * curvature / 2)
            state.boundary = true
            ss = state.radius^2
            break
        end
        method.memory > 0 && update!(collector, p, Hp, curvature)
        add_scaled!(s, alpha, p)
        add_scaled!(r, -alpha, Hp)
        state.predicted += alpha * rz / 2
        ss += alpha * (2sp + alpha * pp)
        two_norm(r) <= tolerance && break
        apply_inverse!(z, M, r)
        rz_new = dot_product(r, z)
        rz_new > 0 || break
        beta = rz_new / rz
        rz = rz_new
        for i in eachindex(p)
            p[i] = z[i] + beta * p[i]
        end
        sp = beta * (sp + alpha * pp)
        pp = rz + beta^2 * pp
    end
    state.length = sqrt(max(ss, zero(T)))
    # Few pairs say less than the matrix they would replace.
    if collector.count >= min(5, length(collector.product))
        state.preconditioner, state.collector = collector, M
    end
    return true
end

"Eisenstat and Walker's second choice of the relative residual."
function force!(state::KrylovState{T}, gnorm::T) where {T}
    ratio = gnorm / state.before
    forcing = isfinite(ratio) ? T(0.9) * ratio^2 : T(0.5)
    safe = T(0.9) * state.forcing^2
    safe > T(0.1) && (forcing = max(forcing, safe))
    state.before = gnorm
    return state.forcing = clamp(forcing, 100 * eps(T), T(0.5))
end

"First radius: 10 % of the parameters, relative to the gradient."
function first_radius(state::KrylovState{T}) where {T}
    size = two_norm(state.x)
    return T(0.1) * max(size, T(0.1)) / two_norm(state.gradient)
end

const PROBES = 60

"""
Conjugate gradients on a vector that has a part along every eigenvector meet negative curvature, where there is any to
speak of, within few products.
"""
function at_saddle!(state::KrylovState{T}, objective::Objective{T}) where {T}
    r, p, Hp = state.residual, state.direction, state.product
    copyto!(p, fill_generic!(r))
    rr = dot_product(r, r)
    largest = zero(T)
    for k in 1:min(PROBES, 2 * length(r))
        evaluate_product!(Hp, objective, state.x, p)
        curvature, size = dot_product(p, Hp), dot_product(p, p)
        isfinite(curvature) && size > 0 || return false
        largest = max(largest, two_norm(Hp) / sqrt(size))
        if curvature < -sqrt(eps(T)) * largest * size
            scale = (dot_product(p, state.gradient) > 0 ? -1 : 1) / sqrt(size)
            for i in eachindex(p)
                p[i] *= scale
            end
            return state.escaping = true
        end
        curvature > sqrt(eps(T)) * largest * size || return false
        alpha = rr / curvature
        add_scaled!(r, -alpha, Hp)
        rr_new = dot_product(r, r)
        rr_new > 0 || return false
        for i in eachindex(p)
            p[i] = r[i] + rr_new / rr * p[i]
        end
        rr = rr_new
    end
    return false
end

register!(MINIMIZE_METHODS, "NewtonKrylov", NewtonKrylov(),
          "truncated Newton method on Hessian-vector products, for many parameters"; when="large nets, to round-off")
