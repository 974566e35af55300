# Along a trajectory: the Hessian's spectrum, and the saddles that a flow passes.

"""
    spectrum_along(net, X; k = P) -> Λ

Eigenvalues of the Hessian, ascending, at each column of `X` (P×M): P×M, or 2k×M with the `k` lowest and the `k`
highest if 2k < P.
"""
function spectrum_along(net::AbstractNet{T}, X::AbstractMatrix; k::Int=n_params(net)) where {T}
    P = n_params(net)
    size(X, 1) == P || throw(DimensionMismatch("points have $(size(X, 1)) entries, the net has $P parameters"))
    k >= 1 || throw(ArgumentError("k is $k; at least 1 is needed"))
    kept = 2k < P ? [1:k; P-k+1:P] : collect(1:P)
    H = Matrix{T}(undef, P, P)
    Λ = Matrix{T}(undef, length(kept), size(X, 2))
    for m in axes(X, 2)
        Λ[:, m] = eigvals!(Symmetric(hessian!(H, net, Vector{T}(X[:, m]))))[kept]
    end
    return Λ
end

"""
    escape_saddle(net, θ; sign = 1) -> θ′

The lowest point on θ ± h·v, v the eigenvector of the lowest eigenvalue (its largest component positive, so that
`sign` chooses between the two sides), among h that double from the length for which the curvature lowers the loss
visibly. An error if no eigenvalue is negative.
"""
function escape_saddle(net::AbstractNet{T}, θ::AbstractVector; sign::Real=1) where {T}
    sign in (1, -1) || throw(ArgumentError("sign is $sign; 1 or -1 is needed"))
    x = Vector{T}(θ)
    F = eigenpairs!(hessian(net, x))
    λ, v = F.values[1], F.vectors[:, 1]
    λ < -4 * length(x) * eps(T) * maximum(abs, F.values) ||
        throw(ArgumentError("the lowest eigenvalue is $λ: there is no direction of escape"))
    v .*= sign * Base.sign(v[argmax(abs.(v))])
    base = loss(net, x)
    h = sqrt(2 * 1000 * eps(T) * (base + T(loss_scale(net, x)) * T(1e-3)) / -λ)
    best, lowest = x, base
    for k in 1:200
        trial = x + h * v
        value = loss(net, trial)
        isfinite(value) && value < lowest || (lowest < base ? break : nothing)
        value < lowest && (best = trial; lowest = value)
        h *= 2
    end
    lowest < base ||
        throw(ArgumentError("the loss falls nowhere along the lowest eigenvector: this is too far from a saddle"))
    return best
end

"""
    SaddlePassages

The saddles that a flow passed, one entry each: time `t` of the smallest gradient, the plateau from `t_start` to
`t_end`, `loss`, `gnorm`, `index`, the `lowest` eigenvalue, and the points `x` (P×M).
"""
struct SaddlePassages{T}
    t::Vector{Float64}
    t_start::Vector{Float64}
    t_end::Vector{Float64}
    loss::Vector{T}
    gnorm::Vector{Float64}
    index::Vector{Int}
    lowest::Vector{T}
    x::Matrix{T}
end
Base.length(s::SaddlePassages) = length(s.t)
Base.show(io::IO, s::SaddlePassages) =
    print(io, "SaddlePassages(", join(("t = $(s.t[i]), loss $(s.loss[i]), index $(s.index[i])" for i in 1:length(s)),
          "; "), ")")

"Positions of minima from which a sequence rises by the factor `contrast`, and that lie as far below the peak before."
function valleys(v, contrast)
    found, falling, mark = Int[], true, 1       # the mark: the lowest so far while falling, the highest while rising
    for i in eachindex(v)
        if falling
            v[i] <= v[mark] && (mark = i)
            v[i] >= contrast * v[mark] && (push!(found, mark); falling = false; mark = i)
        else
            v[i] >= v[mark] && (mark = i)
            v[i] <= v[mark] / contrast && (falling = true; mark = i)
        end
    end
    return found
end

"""
    saddle_passages(net, trajectory; contrast = 3, plateau = 0.05) -> SaddlePassages

Near a saddle a flow slows down and speeds up again: ‖∇L‖ has a minimum, from which it rises by a factor of at least
`contrast` (a flow that starts near a saddle passes it at t = 0). The plateau is the time for which the loss stays
within the part `plateau` of its value there. The index counts the eigenvalues of the Hessian that matter: those
with λ·(t_end − t_start) < −1, whose directions grow by more than e in that time; where there is none, it was no
saddle. A passage between two recorded points is missed: `save_everystep` keeps them all.
"""
function saddle_passages(net::AbstractNet{T}, r::Trajectory{T}; contrast::Real=3, plateau::Real=0.05) where {T}
    size(r.x, 1) == n_params(net) ||
        throw(DimensionMismatch("points have $(size(r.x, 1)) entries, the net has $(n_params(net)) parameters"))
    contrast > 1 || throw(ArgumentError("contrast is $contrast; more than 1 is needed"))
    plateau > 0 || throw(ArgumentError("plateau is $plateau; a positive number is needed"))
    at, starts, ends, index, lowest = Int[], Float64[], Float64[], Int[], T[]
    for low in valleys(r.gnorm, contrast)
        leaves(L) = abs(L - r.loss[low]) > plateau * abs(r.loss[low])
        a = something(findprev(leaves, r.loss, low), 0) + 1
        b = something(findnext(leaves, r.loss, low), length(r) + 1) - 1
        λ = eigvals(Symmetric(hessian(net, r.x[:, low])))
        n = count(l -> l * (r.t[b] - r.t[a]) < -1, λ)
        n > 0 || continue
        append!(at, low); append!(starts, r.t[a]); append!(ends, r.t[b]); append!(index, n); append!(lowest, λ[1])
    end
    return SaddlePassages{T}(r.t[at], starts, ends, r.loss[at], r.gnorm[at], index, lowest, r.x[:, at])
end
