# The trust-region subproblem  min gᵀs + ½ sᵀHs  subject to ‖s‖ ≤ Δ, exactly, the hard case included.

"""
    Subproblem{T}(P)

Workspace for [`solve_subproblem!`](@ref); call [`reduce!`](@ref) once for every new Hessian. After a solve
`shift` is the multiplier λ, `reduction` the decrease the quadratic model predicts, `interior` whether
‖s‖ < Δ, and `lowest` the estimate of the smallest eigenvalue, if it was needed (else 0).
"""
Base.@kwdef mutable struct Subproblem{T<:AbstractFloat}
    solver::ShiftedSolver{T}
    gradient::Vector{T}                 # −Qᵀg
    step::Vector{T} = zero(gradient)    # Qᵀs
    work::Vector{T} = zero(gradient)
    # of the smallest eigenvalue, in the basis of Q; refined by inverse iteration
    eigenvector::Vector{T} = zero(gradient)
    bound::T = 0                        # upper bound of ‖H‖₂
    floor::T = 0                        # eigenvalues below this are rounding noise
    shift::T = 0
    reduction::T = 0
    interior::Bool = true
    lowest::T = 0
end
Subproblem{T}(P::Int) where {T} = Subproblem{T}(solver=ShiftedSolver{T}(P), gradient=zeros(T, P))

function reduce!(sub::Subproblem{T}, H::Matrix{T}) where {T}
    reduce!(sub.solver, H)
    sub.bound = norm_bound(sub.solver)
    sub.floor = 2 * eps(T) * sub.bound
    sub.lowest = zero(T)
    fill_generic!(sub.eigenvector)
    return sub
end

const SUBPROBLEM_ITERATIONS = 200

"""
    solve_subproblem!(step, sub, g, radius; tolerance) -> step

Global minimiser of the model for gradient `g`: (H + λI)s = −g with λ ≥ max(0, −λ_min) and ‖s‖ = Δ within
`tolerance` (relative), or ‖s‖ < Δ and λ = 0. Newton's method on 1/‖s(λ)‖ − 1/Δ with the safeguards and
the hard-case test of Moré & Sorensen, SIAM J. Sci. Stat. Comput. 4 (1983) 553. Eigenvalues within rounding
noise of zero count as non-negative: a long step along noise is no step towards a minimum.
"""
function solve_subproblem!(step::Vector{T}, sub::Subproblem{T}, g::Vector{T}, radius::T;
                           tolerance::T=sqrt(eps(T))) where {T}
    S, b, s, w = sub.solver, sub.gradient, sub.step, sub.work
    for i in eachindex(g)
        b[i] = -g[i]
    end
    rotate_in!(S, b)
    gnorm = two_norm(b)
    lower = zero(T)                     # λ ≤ lower is known to be too small
    upper = gnorm / radius + sub.bound  # λ ≥ upper is known to be large enough
    shift = zero(T)
    sub.interior = false
    for attempt in 1:SUBPROBLEM_ITERATIONS
        if !factor!(S, shift)
            lower = max(lower, shift)
            # zero failed: is it only noise?
            shift = shift < sub.floor ? sub.floor : midway(lower, upper)
            continue
        end
        solve!(s, S, b)
        length = two_norm(s)
        sub.shift = shift
        if length <= radius && shift <= sub.floor
            sub.interior = true
            break
        end
        abs(length - radius) <= tolerance * radius && break
        resolved = upper - lower <= 4 * eps(T) * upper
        if length < radius
            upper = min(upper, shift)
            complete_with_eigenvector!(sub, radius, length, resolved ? T(Inf) : tolerance) && break
            lower = max(lower, -sub.lowest)
        else
            lower = max(lower, shift)
            if resolved     # λ + λ_min is smaller than the spacing of numbers near λ
                for i in eachindex(s)
                    s[i] *= radius / length
                end
                break
            end
        end
        if iszero(length)
            shift = midway(lower, upper)
        else
            solve!(w, S, s)
            curvature = dot_product(s, w)
            next = shift + (length^2 / curvature) * ((length - radius) / radius)
            shift = next > lower && next < upper ? next : midway(lower, upper)
        end
    end
    # gᵀs + ½sᵀHs, in the rotated basis
    sub.reduction = dot_product(b, s) - quadratic_form(S, s) / 2
    copyto!(step, s)
    rotate_out!(S, step)
    return step
end

"A point of (lower, upper): their geometric mean, or a small part of the way where it is not inside."
midway(lower::T, upper::T) where {T} = max(sqrt(lower) * sqrt(upper), lower + (upper - lower) / 100)

"""
Hard case: ‖s(λ)‖ < Δ though λ > 0. Refine the lowest eigenvector v by inverse iteration at the present shift
and, if the model loses at most `tolerance` of its reduction that way, go to the boundary along it
(Moré & Sorensen 1983, eq. 3.11 to 3.17). False if λ must first come closer to −λ_min.
"""
function complete_with_eigenvector!(sub::Subproblem{T}, radius::T, length::T, tolerance::T) where {T}
    S, s, v = sub.solver, sub.step, sub.eigenvector
    for repeat in 1:3
        solve!(v, S, v)
        scale = two_norm(v)
        for i in eachindex(v)
            v[i] /= scale
        end
    end
    sub.lowest = quadratic_form(S, v)
    sv = dot_product(s, v)
    gap = (radius - length) * (radius + length)
    # the root of ‖s + τv‖ = Δ that is smaller in size
    tau = gap / (sv + copysign(sqrt(sv^2 + gap), sv))
    excess = tau^2 * max(sub.lowest + sub.shift, zero(T))
    value = dot_product(sub.gradient, s) + sub.shift * radius^2    # sᵀ(H+λ)s + λΔ²
    excess <= tolerance * value || return false
    for i in eachindex(s)
        s[i] += tau * v[i]
    end
    return true
end
